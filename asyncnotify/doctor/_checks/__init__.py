"""
The checks, one module each.

Each has a ``NAME``, and ``look(server)``, which returns findings and raises what asyncpg raises.
"""
