"""The daemon's process: it builds every part, wires them, and handles signals.

`bootstrap` finds plugins and paths, `daemon` makes the parts from the network to the API and runs
them until a signal drains them; nothing imports it but the command line.
"""
