"""Runs in the engine: which calls belong to one, and which settlement begins one.

`run_calls` is asked as new tasks are made and attempts are settled; `queue/runs` counts what it
says, and `runtime/run_end_teller` tells of the ends.
"""
