"""Real daemons, started as a user starts them, against real receivers: what orchestratord promises.

daemon      one daemon as a process: its files, its log, its end
control     its API
receiver    an HTTP server in a thread that does what a test tells it to, and records all of it
processes   other programs that tests need beside it
waiting     for a condition, never for a time
undisturbed that others are answered meanwhile

Each folder has the tests of one section of what users are promised, with helpers that it alone
needs.
"""
