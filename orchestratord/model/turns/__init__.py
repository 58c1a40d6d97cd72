"""By what tasks take turns.

What a new task says of its partition goes in here, what the row of one says of it comes out.
`task` has both; nothing here knows of tasks.
"""
