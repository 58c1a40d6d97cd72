"""Files for the beginning: `init` writes a config folder, `new` an endpoint or a plugin.

They come from templates/ by way of scaffold, and are judged before they are written.
"""
