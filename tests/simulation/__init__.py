"""The daemon under simulated time: whole universes of a seed, with everything that goes wrong.

See the README beside it.
"""
