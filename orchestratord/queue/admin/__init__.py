"""Work on a queue from outside of a daemon: moving it, and looking at it without changing it.

Used by commands alone; the daemon's own way in is the store.
"""
