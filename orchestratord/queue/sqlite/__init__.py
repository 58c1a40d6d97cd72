"""What the queue does in its own way in a file of SQLite, which one run has for itself: one daemon,
or the workers that share it (`shared_file`, and what that needs).

The store opens it, and operations come in through the interfaces of `database`, `connection` and
`session`; nothing else asks which database it is.
"""
