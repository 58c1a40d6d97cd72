"""The functions of the verbs, loaded when their verb is said; `verb_table` names them.

Each takes the client, the console and the command line's arguments, asks the daemon, writes what
it answered, and returns the exit code.
"""
