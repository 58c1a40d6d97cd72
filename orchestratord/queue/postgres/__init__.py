"""What the queue does in its own way in a PostgreSQL, which several daemons share.

URLs, connections, claims, rates, LISTEN and NOTIFY, and what holds vacuum back; behind the
interfaces of `database`, `connection` and `session`. Only the store opens it.
"""
