"""What hooks return to be written, beyond single rows and tasks.

What a plugin says of all tasks like one goes in here, and comes out as the rows that are written
for so many of them. `queue` writes these, in the transaction of what they follow from.
"""
