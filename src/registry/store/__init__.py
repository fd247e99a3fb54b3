"""The only SQL: everything that is asked of PostgreSQL, and nothing that decides."""
