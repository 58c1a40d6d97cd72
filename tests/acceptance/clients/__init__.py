"""Clients of the API that this repository publishes, against real daemons."""
