"""Plugins: the hooks, what they are given and may return, and the host that calls them.

The engine and the API call the host; the host calls each plugin and keeps its faults apart. The
core names no plugin.
"""
