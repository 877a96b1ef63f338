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

from types import FunctionType

try:
    import litestar as _litestar
except ImportError as _error:
    _msg = "asyncnotify.ext.litestar needs litestar: pip install 'asyncnotify-pg[litestar]'"
    raise ImportError(_msg) from _error

from asyncnotify.ext.litestar._dependencies import ListenerDependency, LogDependency
from asyncnotify.ext.litestar._log import LogChannelsBackend
from asyncnotify.ext.litestar._notify import NotifyChannelsBackend
from asyncnotify.ext.litestar._plugin import LogPlugin, NotifyPlugin
from asyncnotify.ext.litestar._sse import resume_after, sse_messages

__all__ = [
    "ListenerDependency",
    "LogChannelsBackend",
    "LogDependency",
    "LogPlugin",
    "NotifyChannelsBackend",
    "NotifyPlugin",
    "resume_after",
    "sse_messages",
]

del _litestar
for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type | FunctionType) and _public.__module__.startswith(__name__):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
