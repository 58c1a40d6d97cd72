"""The configuration as people and editors see it: merged, with origins, as a JSON Schema.

The snapshot and the models come in; plain data without secrets goes out, to commands, the API and
editors.
"""
