"""
The only room that knows the driver: dialling, sessions, and which errors are worth a retry.

There are two roads for a notification. Connections that asyncnotify opens are of a class of its
own, whose ``_process_notification`` hands it straight to the caller: nothing is lost between
LISTEN and a registration, many channels take one statement, and it costs 0.26 µs instead of
1.2 µs. That is a private hook of asyncpg; where it is not as expected, and for connections that
a caller opened, the public ``add_listener`` serves.
"""
