"""Lists of an endpoint, such as its webhooks, written back to the YAML with comments kept.

An edit as data comes in at `editor`; `splice` proposes a text, which is read again and compared;
the same file goes out, changed in that list alone, or a refusal.
"""
