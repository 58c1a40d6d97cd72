"""The engine: it claims due tasks, makes attempts, and settles how they ended.

The worker chooses from `lanes`, claims from the store, and gives each task to the pipe of
`attempt`. Its result goes to `settle`, with all that follows from it. `new` brings new tasks.
"""
