"""
Reports of running services over PostgreSQL itself, and the question who listens.

A service that wants to be seen runs ``Reporting``. ``roll_call()`` asks once, ``Reports`` collects
for as long as it is open. The module's path is its API, with the names in ``__all__``.
"""

from asyncnotify.ext.reporting._report import ChannelReport, ServiceReport
from asyncnotify.ext.reporting._reporting import Reporting
from asyncnotify.ext.reporting._reports import Reports, roll_call

__all__ = ["ChannelReport", "Reporting", "Reports", "ServiceReport", "roll_call"]

for _public in map(globals().__getitem__, __all__):
    _public.__module__ = __name__  # the name in tracebacks, pickles and docs
