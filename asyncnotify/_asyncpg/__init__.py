"""
The only package that knows the driver: connecting, sessions, and which errors are retried.

Notifications arrive in one of two ways. Connections that asyncnotify opens are of a class of its
own, whose ``_process_notification`` passes them straight on: nothing is lost between LISTEN and
a registration, many channels take one statement, and a notification costs 0.26 µs instead of
1.2 µs. That is a private method of asyncpg. Where its signature is not as expected, and for
connections that the caller opened, the public ``add_listener`` is used.
"""
