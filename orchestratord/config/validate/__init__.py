"""From nodes to validated values of the model, and what is said where they do not fit.

Nodes come in; models go out, and problems with file, line and remedy.
"""
