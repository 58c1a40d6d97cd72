"""What a measurement needs around it: a daemon, receivers, databases, a folder for the peers."""
