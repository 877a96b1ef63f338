"""Sending notifications: calls that meet go out together. Knows no driver."""
