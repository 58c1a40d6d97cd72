"""Calls that the clock makes."""
