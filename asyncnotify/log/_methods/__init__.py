"""The methods of a log, by what they are for: Log is all of them together."""
