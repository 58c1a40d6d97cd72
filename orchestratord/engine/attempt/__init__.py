"""An attempt of a claimed task: it gets a slot, is prepared, sent, and decided on.

`pipe` has the line that it goes along, which calls `prepare`, `send` and `decide` in this order,
and hands its result on to `settle`. `deadlines` ends what does not end by itself.
"""
