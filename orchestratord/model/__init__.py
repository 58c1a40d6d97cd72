"""What the YAML declares, what the queue holds, what goes out and what comes back: frozen data.

Built from values alone. The config reads the YAML into it; the queue, the engine and the API pass
it on.
"""
