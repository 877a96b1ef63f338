"""The same faces for threads: no await."""
