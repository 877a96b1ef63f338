"""Under which interface the present request is served."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from django.core.signals import request_finished, request_started

from asyncnotify import WrongLoopError

_loop_is_short: Final[ContextVar[bool]] = ContextVar("asyncnotify_loop_is_short", default=False)
"""Whether the event loop of an async view ends with the request."""

_ID: Final = "asyncnotify.ext.django"


def look_at_requests() -> None:
    """Know of each request under which interface it is served. May be called again."""
    request_started.connect(_started, dispatch_uid=_ID)
    request_finished.connect(_finished, dispatch_uid=_ID)


def _started(*, environ: object = None, **_: object) -> None:
    _loop_is_short.set(environ is not None)  # WSGI's; ASGI has a scope


def _finished(**_: object) -> None:
    _loop_is_short.set(False)


def refuse_short_loop() -> None:
    """Raise WrongLoopError in an async view under WSGI."""
    if _loop_is_short.get():
        msg = (
            "an async view under WSGI has an event loop of its own, which ends with the request:"
            " serve the view under ASGI, or use a BlockingListener(**connect_arguments())"
        )
        raise WrongLoopError(msg)
