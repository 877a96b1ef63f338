"""Keeps a listener connected: connecting, LISTEN, heartbeats, reconnecting. Knows no driver."""
