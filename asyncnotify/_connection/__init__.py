"""One session after another, for ever: connecting, LISTEN, proof, reconnecting. Knows no driver."""
