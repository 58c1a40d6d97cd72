"""Child tasks: what follows from attempts, and from what else hooks are told of.

`new_tasks` is the half of the pipe that makes of them what is written, with slots for those that
can run at once, and starts these when they are on disk.
"""
