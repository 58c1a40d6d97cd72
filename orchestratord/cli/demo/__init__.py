"""`orchestratord demo`: a story that a real daemon plays, and that is counted at the end.

`story` says what is called, what the API answers and what must come of it; `player` starts a
`daemon_process` and the `receiver`, places the calls and shows what happens.
"""
