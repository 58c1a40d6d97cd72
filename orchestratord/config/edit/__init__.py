"""Lists of an endpoint, such as its webhooks, written back to the YAML with comments kept.

An edit as data comes in; the same file goes out, changed in that list alone, or a refusal.
"""
