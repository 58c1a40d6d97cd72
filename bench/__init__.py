"""What is measured, as commands of their own: never as tests, whose machine may be busy."""
