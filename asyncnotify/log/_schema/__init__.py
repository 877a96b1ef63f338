"""The tables and functions of a log, by version."""
