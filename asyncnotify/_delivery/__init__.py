"""The way of a notification from its arrival to a buffer. No I/O, no task."""
