"""Other queues, set up for this work as their documentation advises."""
