"""Delays between attempts."""
