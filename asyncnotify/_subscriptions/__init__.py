"""The consumers of notifications: handlers and streams."""
