"""Operations on the queue beside its work: what is kept no longer is deleted, times of a turned
clock are brought back, tasks of endpoints that are gone are found, tasks are counted anew.

Made and carried out as those in `operations`, which they may use.
"""
