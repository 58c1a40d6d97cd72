"""Pages of a real daemon in a real browser."""
