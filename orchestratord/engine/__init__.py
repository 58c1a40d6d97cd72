"""The engine: it claims due tasks, makes attempts, and settles how they ended.

The worker chooses from `lanes`, claims from the store, and gives each task to the pipe of
`attempt`, which settles its result with all that follows from it. `enqueue` and `scheduler` bring
new tasks.
"""
