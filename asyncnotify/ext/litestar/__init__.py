"""
Litestar: channels over PostgreSQL, a listener for handlers, and server-sent events that resume.

::

    from litestar import Litestar
    from litestar.channels import ChannelsPlugin

    from asyncnotify.ext.litestar import NotifyChannelsBackend

    backend = NotifyChannelsBackend("postgresql://localhost/postgres")
    channels = ChannelsPlugin(backend, channels=["orders"], create_ws_route_handlers=True)
    app = Litestar(plugins=[channels])

The module's path is its API, with the names in ``__all__``.
"""

from __future__ import annotations

try:
    import litestar as _litestar
except ImportError as error:
    _msg = "asyncnotify.ext.litestar needs Litestar: pip install 'litestar>=2.12'"
    raise ImportError(_msg) from error

from asyncnotify.ext.litestar._log import LogChannelsBackend
from asyncnotify.ext.litestar._notify import NotifyChannelsBackend

__all__ = ["LogChannelsBackend", "NotifyChannelsBackend"]

del _litestar
for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
