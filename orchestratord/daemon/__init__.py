"""The daemon's process: it builds every part, wires them, handles signals, tells systemd.

`daemon` is the composition root; nothing imports it but the command line.
"""
