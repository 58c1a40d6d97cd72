"""Figures of several rounds, and the tables that they become."""
