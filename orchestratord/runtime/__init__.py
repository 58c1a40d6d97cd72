"""What happens to a running daemon as a whole: a new configuration, and the other daemons.

Above the engine, whose worker is told; below the API, which asks.
"""
