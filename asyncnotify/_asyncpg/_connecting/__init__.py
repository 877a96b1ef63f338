"""Making a connection: names, addresses, TLS, and what a peer says until it has accepted."""
