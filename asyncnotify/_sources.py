"""Where the facades take their connections: from the driver, or from a registered source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncnotify._asyncpg import transactions
from asyncnotify._asyncpg._connecting.dial import Dialer
from asyncnotify._asyncpg.listening import ListeningConnections
from asyncnotify._asyncpg.publishing import OwnConnections
from asyncnotify.sources import ConnectionSource, Transaction, registered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncnotify._asyncpg._connecting.dial import Connect
    from asyncnotify._keepalive import Keepalive


class DriversSource:
    """
    The driver.

    Args:
        dialer: Makes the connections, each in the time that it has been given.
        keepalive: TCP keepalive for both ends of each connection; None leaves it as it is.
    """

    def __init__(self, dialer: Dialer, keepalive: Keepalive | None) -> None:
        self._dialer = dialer
        self._keepalive = keepalive

    @property
    def target(self) -> str:
        """The server, as logs and errors name it."""
        return self._dialer.target

    def listening(
        self,
        *,
        connect_timeout: float,  # noqa: ARG002 - the dialer's
        timeout: float,
    ) -> ListeningConnections:
        """Return what opens sessions that listen."""
        return ListeningConnections(self._dialer, self._keepalive, timeout=timeout)

    def publishing(
        self,
        *,
        connect_timeout: float,  # noqa: ARG002 - the dialer's
        timeout: float,
        on_open: Callable[[int], None] | None = None,
    ) -> OwnConnections:
        """Return what opens connections on which notifications are sent."""
        return OwnConnections(self._dialer, self._keepalive, timeout=timeout, on_open=on_open)


def source_of(
    dsn: object,
    connect: Connect | None,
    connect_kwargs: Mapping[str, Any],
    *,
    keepalive: Keepalive | None,
    connect_timeout: float,
    start_timeout: float | None,
) -> ConnectionSource:
    """
    Return where connections for these arguments, which have been checked, come from.

    Raises:
        ConfigurationError: The DSN or another argument cannot be honoured.
        TypeError: An argument is of a type that it cannot have.
    """
    if connect is None and (source := registered(dsn)) is not None:
        return source
    dialer = Dialer(
        dsn, connect, connect_kwargs, timeout=connect_timeout, start_timeout=start_timeout
    )
    return DriversSource(dialer, keepalive)


async def notify_within(connection: object, channel: str, payload: str) -> None:
    """
    Send a notification when the transaction of this connection commits.

    Raises:
        TypeError: The connection is of no kind that can be used.
        Exception: What its driver raises.
    """
    if isinstance(connection, Transaction):
        connection.pg_notify(channel, payload)
    else:
        await transactions.notify_within(connection, channel, payload)


def notify_within_thread(connection: object, channel: str, payload: str) -> None:
    """Do as ``notify_within()``, on a connection that blocks, in the calling thread."""
    if isinstance(connection, Transaction):
        connection.pg_notify(channel, payload)
    else:
        transactions.notify_within_thread(connection, channel, payload)
