"""The log for threads."""
