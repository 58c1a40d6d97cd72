"""The API over the socket and over TCP, its events and its metrics."""
