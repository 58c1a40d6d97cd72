"""`orchestratord doctor`: what may be wrong on this machine, and what to do."""
