"""What the queue does in its own way in a file of SQLite, which one daemon has for itself.

The store opens it, and operations come in through the interfaces of `database`, `connection` and
`session`; nothing else asks which database it is.
"""
