"""From the arrival of a notification to the buffer of its consumer. No I/O, no task."""
