"""The daemon under simulated time: whole universes of a seed, with everything that goes wrong.

See docs/explanation/simulation.md.
"""
