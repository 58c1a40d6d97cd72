"""`orchestratord doctor`: what may be wrong on this machine, and what to do.

`installation` reads the configuration and asks the daemon; the checks, by their subject, take what
it found and yield findings; `doctor_command` prints these.
"""
