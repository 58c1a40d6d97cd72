"""The queue on disk: `retry_schedule` and the tables beside it, on SQLite or PostgreSQL.

`operations` make what is to be done, the store has the writer commit it or the reader look it up,
and what comes back are the model's tasks. Nothing here knows of configuration, plugins or the
network.
"""
