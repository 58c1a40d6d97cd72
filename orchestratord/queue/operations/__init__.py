"""What can be done to the queue, one subject a module, run inside a transaction of the store.

Each takes a session or a connection and values of `records`, and gives values of the model back.
"""
