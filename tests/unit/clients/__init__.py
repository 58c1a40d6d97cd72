"""The Python client without a daemon."""
