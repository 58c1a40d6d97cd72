"""Commands that only look: at the configuration and its plugins.

Each reads the config folder by `opened_config`, makes one document of what it found, and prints
that as JSON for programs or as text for a terminal; both are in the command's own module.
"""
