"""What happens to a running daemon as a whole: a new configuration, the other
daemons, the service manager.

Above the engine, whose worker is told; below the API, which asks.
"""
