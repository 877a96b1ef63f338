"""Where to connect, and how: what arguments, a DSN, libpq's files and the environment say."""
