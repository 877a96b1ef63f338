"""Tools for testing code that listens; import what you need from the submodules."""

__all__: list[str] = []
