"""The daemon's process: it builds every part, wires them, and handles signals.

`bootstrap` finds plugins, database and socket; `daemon` builds the parts from the queue up to the
API, and runs them until it is told to stop; `chores` and `watchdog` run beside them.
"""
