"""The parts of the fault proxy: sockets, connections, traffic."""
