"""What happens to a running daemon as a whole: a reload, the other daemons, the service manager.

`reload` tells the engine of a new configuration, and `fleet` of what other daemons have changed;
both are asked by the API above.
"""
