"""The command `orchestratord`.

A command NAME is in NAME_command.py: of those that make files in create/, of those that only look
in inspect/. Each is handed the folder that `--config` names, and opened_config reads it.
"""
