"""What one process holds in memory; nothing here asks PostgreSQL."""
