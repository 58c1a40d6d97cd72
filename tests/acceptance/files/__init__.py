"""Declarations in YAML: what they make requests of, and where their secrets go."""
