"""What can be done to the queue, one subject a module: functions that make operations.

An operation (`batch.Write`, `batch.Read`) is a value that the store carries out; what takes several
is an async function that takes the store. Each takes values of `records` and gives those of the
model back.
"""
