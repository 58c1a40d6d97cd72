"""Commands that only look: at the configuration, its plugins, and what an attempt would do.

Each has its text for a terminal in its own module, beside the JSON that programs read.
"""
