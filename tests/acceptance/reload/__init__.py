"""Changed files, taken up while it runs."""
