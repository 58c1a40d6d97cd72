"""The table: what a kill leaves behind, and what waits in lanes."""
