"""
What may stand in for PostgreSQL: another source of connections, for DSNs that name a host of its.

``asyncnotify.testing.fake`` is one. Programs need nothing of this module.

::

    register("fake-1.invalid", source)  # for as long as somebody holds the source

    Listener("postgresql://fake-1.invalid/")  # takes its connections from the source
    Notifier("postgresql://fake-1.invalid/")

A ``ConnectionSource`` hands over what a listener and a notifier need of a driver: the protocols
``ListeningConnections`` and ``PublishingConnections``, with the sessions that these open. Their
docstrings are the contract. They may get further methods in a minor version.
"""

from __future__ import annotations

import abc
import weakref
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

from asyncnotify._arguments import type_name
from asyncnotify._channels.checksum import Checksum
from asyncnotify._connection.ports import ListeningConnections, ListeningSession, OtherConnection
from asyncnotify._delivery.router import FlowControl
from asyncnotify._errors import ConfigurationError
from asyncnotify._publishing.ports import PublishingConnections, PublishingSession

__all__ = [
    "Checksum",
    "ConnectionSource",
    "FlowControl",
    "ListeningConnections",
    "ListeningSession",
    "OtherConnection",
    "PublishingConnections",
    "PublishingSession",
    "Transaction",
    "error_for_missing",
    "register",
]


class ConnectionSource(Protocol):
    """Where the connections of a listener or a notifier come from."""

    @property
    def target(self) -> str:
        """The server, as logs and errors name it."""
        ...

    def listening(self, *, connect_timeout: float, timeout: float) -> ListeningConnections:
        """
        Return what opens sessions that listen.

        Args:
            connect_timeout: Seconds in which each connection has to be made.
            timeout: Seconds in which the server has to answer each command.

        Raises nothing.
        """
        ...

    def publishing(
        self,
        *,
        connect_timeout: float,
        timeout: float,
        on_open: Callable[[int], None] | None = None,
    ) -> PublishingConnections:
        """
        Return what opens connections on which notifications are sent.

        Args:
            connect_timeout: Seconds in which each connection has to be made.
            timeout: Seconds in which the server has to answer each command.
            on_open: Called with the backend pid of each connection.

        Raises nothing.
        """
        ...


def error_for_missing(source: object, what: str) -> Exception:
    """
    Return the error that says that a source, or a Transaction at one, has no ``what``.

    Args:
        source: Its method of this name makes the error, from ``what``; a ConfigurationError is
            made where it has none.
        what: In the plural, such as "locks".

    Raises nothing.
    """
    of_its_own = getattr(source, "error_for_missing", None)
    if of_its_own is None:
        return ConfigurationError(f"{what} need a PostgreSQL server: {type_name(source)} is none")
    error: Exception = of_its_own(what)
    return error


class Transaction(abc.ABC):
    """A transaction at a source: ``notify(…, connection=)`` takes it besides the drivers' own."""

    @abc.abstractmethod
    def pg_notify(self, channel: str, payload: str) -> None:
        """
        Send a notification when the transaction commits. Must not block.

        Raises:
            Exception: The notification cannot be sent: ``notify()`` raises the same.
        """


_sources: Final[weakref.WeakValueDictionary[str, ConnectionSource]] = weakref.WeakValueDictionary()


_known: Final[set[str]] = set()
"""The hosts of all that has been registered, also of what is gone."""

_NOWHERE: Final = ".invalid"
"""What ends the names of hosts that no server has."""


def register(host: str, source: ConnectionSource) -> None:
    """
    Let every Listener and Notifier whose DSN names this host take its connections from a source.

    Those that exist already are not affected. The registration ends with the last reference to the
    source. Choose a name below ``.invalid``, which no server ever has: once the source is gone, a
    DSN with that name is refused.

    Args:
        host: The host name, in lower case.
        source: Replaces the one registered before, if any.

    Raises nothing.
    """
    _sources[host] = source
    _known.add(host)


def registered(dsn: object) -> ConnectionSource | None:
    """
    Return the source that serves this DSN, a str or a URL object; None: a driver does.

    Raises:
        ConfigurationError: The source was at a host that no server has, and is gone.
    """
    if not _known:
        return None
    host = getattr(dsn, "host", None)  # of a URL of SQLAlchemy's
    if host is None:
        text = getattr(dsn, "unicode_string", lambda: dsn)()  # pydantic's
        host = _host_in(text) if isinstance(text, str) else None
    if host is None or host not in _known:
        return None
    source = _sources.get(host)
    if source is None and host.endswith(_NOWHERE):
        msg = (
            f"what was registered for {host} is gone: keep a reference to it, such as to the"
            " FakeServer, as long as its DSN is used"
        )
        raise ConfigurationError(msg)
    return source


def _host_in(dsn: str) -> str | None:
    try:
        return urlsplit(dsn).hostname
    except ValueError:
        return None  # to be refused as any wrong DSN


for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
