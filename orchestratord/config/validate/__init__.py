"""From nodes to validated values of the model, and what is said where they do not fit.

Nodes come in through `node_reader`; models go out, and `problems` with file, line and remedy. The
other modules are rules that no type can hold.
"""
