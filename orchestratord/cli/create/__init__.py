"""Commands that make files: `init` a config folder, `new` an endpoint or a plugin.

Templates become texts in `scaffold`; an endpoint's are tried on a copy of the folder first, by the
code that reads the configuration; then they are written, never over what is there.
"""
