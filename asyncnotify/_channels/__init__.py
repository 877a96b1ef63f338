"""Channel names and payloads: what may be one, and how it is coded. No I/O."""
