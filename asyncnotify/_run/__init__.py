"""One run of a listener: its start, its end, its report."""
