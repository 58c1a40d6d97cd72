"""What the queue does in its own way in a file of SQLite, which one daemon has for itself.

Behind the interfaces of `database`, `connection` and `session`; only the store opens it.
"""
