"""What the tables of the queue are declared with.

`table_parts` has the types and indexes that the two databases do not share; `queue/models.py` has
the tables, which are declared with these.
"""
