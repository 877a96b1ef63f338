"""The order of the events: what each tick holds, and how that is read in portions."""
