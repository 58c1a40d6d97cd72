"""New tasks: from the API, plugins, schedules and attempts to the transaction that writes them.

`enqueue` and `scheduler` bring them; `new_tasks` makes of them what is written, each with its
`call_partition`, and wakes the worker for those that are due.
"""
