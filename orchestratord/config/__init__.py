"""The config folder, read into one immutable snapshot, or into every problem at once.

Files go through `yaml` (text to nodes), `inherit` (merging), `validate` (nodes to the model) to
`load`; `loader` holds the one in force; `show` leads back to people, `endpoint_file` to a file.
"""
