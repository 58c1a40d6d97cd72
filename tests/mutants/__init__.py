"""Faults of one line each in engine and queue, and for each a test that finds it."""
