"""What is asked of the whole table: who fails now, what there is of what, what waits for how long.

Read operations as those in `operations`, which they may use. Each looks at a bounded number of
rows, whatever the table holds, and says where that was not all of them.
"""
