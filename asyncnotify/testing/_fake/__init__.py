"""The notification server in memory, behind the protocols of ``asyncnotify.sources``."""
