"""The verbs, each loaded only when it is said.

A verb is a function of the client, the screen and the parsed command line. It returns the exit
code, or raises a `Failure` that has one.
"""
