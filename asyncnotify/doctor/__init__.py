"""
What is wrong, or will be, between a program and the notifications of a PostgreSQL server.

``diagnose()`` only reads. Each finding has its evidence and its cure. The module's path is its API,
with the names in ``__all__``; ``asyncnotify.doctor.printing`` prints a report with rich.
"""

from asyncnotify.doctor._diagnosis import diagnose
from asyncnotify.doctor._findings import Finding, Report, Severity
from asyncnotify.doctor._text import as_text

__all__ = ["Finding", "Report", "Severity", "as_text", "diagnose"]

for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
