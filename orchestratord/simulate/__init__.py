"""What would happen, without sending anything: explained attempts, timetables, test cases.

The configuration and a fake answer come in; the request, the decision and what follows from it go
out. The engine's own rules decide.
"""
