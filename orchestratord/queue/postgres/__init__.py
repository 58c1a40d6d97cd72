"""What PostgreSQL does in its own way: connections, LISTEN and NOTIFY, what holds vacuum back.

`database` says what the queue asks of a database; the store opens one.
"""
