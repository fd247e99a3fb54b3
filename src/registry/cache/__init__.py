"""The state that a process holds in memory, and its copy on disk; nothing here asks PostgreSQL."""
