"""orchestratorctl: the operator's client, which speaks to the daemon over its control socket.

main reads the command line by verb_table and runs the verb's function in verbs/; that asks through
socket_client, makes lines with tables and the *_text modules, and writes them to the console.
It imports nothing but the standard library, so that it starts at once; PyYAML only with `-o yaml`.
"""
