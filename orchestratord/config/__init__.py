"""The config folder, read into one immutable snapshot, or into every problem at once.

Files go through `yaml` (text to nodes), `inherit` (merging), `validate` (nodes to the model) to
`load`; `loader` holds the one in force; `show` and `edit` lead back to people and files.
"""
