"""The queue on disk: `retry_schedule` and the tables beside it, on SQLite or PostgreSQL.

Operations come in through the store, are committed by the writer or looked up by the reader, and go
out as the model's tasks. Nothing here knows of configuration, plugins or the network.
"""
