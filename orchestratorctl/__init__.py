"""orchestratorctl: the operator's client, which speaks to the daemon over its control socket.

It shares no code with the daemon and imports only the standard library, so that it answers at
once: what a command does not need is not loaded. PyYAML comes in with `-o yaml` alone.
"""
