"""Where requests go, through what, and what comes back from there."""
