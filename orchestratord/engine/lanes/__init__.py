"""Lanes: in which order due tasks are claimed, and how many may be in flight.

The worker asks; attempts report back. Nothing here knows of the store.
"""
