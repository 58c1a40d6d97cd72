"""Work on a queue from outside of a daemon: moving it, and looking at it without changing it.

Commands alone use it: a queue's URL comes in, findings or a moved queue go out. The daemon's own
way in is the store.
"""
