"""The configuration as people and editors see it: merged, with origins, as a JSON Schema.

The snapshot comes in; plain data without secrets goes out.
"""
