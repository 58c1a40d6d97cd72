"""Several daemons on one PostgreSQL."""
