"""The annotations by which handlers get a listener or a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from litestar import di

from asyncnotify import Listener
from asyncnotify.log import Log


def _named(kind: type) -> Any:  # noqa: ANN401 - an annotation
    """Mark a type for injection by name where Litestar wants that: since 2.23."""
    try:
        mark = di.NamedDependency
    except AttributeError:
        return kind
    return mark[kind]


if TYPE_CHECKING:
    ListenerDependency: TypeAlias = Listener
else:
    ListenerDependency = _named(Listener)
"""The annotation of a handler's argument that gets the listener of a NotifyPlugin."""

if TYPE_CHECKING:
    LogDependency: TypeAlias = Log
else:
    LogDependency = _named(Log)
"""The annotation of a handler's argument that gets the log of a LogPlugin."""
