"""Channel names and payloads: which are allowed, and how payloads are coded. No I/O."""
