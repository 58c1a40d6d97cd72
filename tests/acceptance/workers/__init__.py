"""`workers: N`: one daemon to its users, several processes to the machine."""
