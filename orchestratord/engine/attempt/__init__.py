"""An attempt of a claimed task: it gets a slot, is prepared, sent, and decided on.

`pipe` has the line that it goes along, step by step, and hands its result on to `settle`.
`deadlines` ends what does not end by itself.
"""
