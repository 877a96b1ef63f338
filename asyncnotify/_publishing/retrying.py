"""Trying again what has failed because there was no connection."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from asyncnotify._backoff import Delays
from asyncnotify._errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    PoolerError,
    describe_error,
)
from asyncnotify._logs import Log, WarningLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify._backoff import Backoff

    Attempt = Callable[[], Awaitable[None]]

log = Log("connection")

_NOT_CONNECTED: Final = (ConnectError, ConnectionLostError)


class Connections(Protocol):
    """What attempts are made to connect by."""

    @property
    def target(self) -> str:
        """What they lead to, for logs."""
        ...


class Retrying:
    """
    Makes attempts, with delays between them, and logs why each has failed.

    Args:
        connections: Whose target the logs name.
        backoff: Called for each series of attempts.
    """

    def __init__(self, connections: Connections, backoff: Backoff) -> None:
        self._connections = connections
        self._backoff = backoff
        self._warnings = WarningLimit()

    async def until_success(
        self,
        attempt: Attempt,
        seconds: float | None,
        *,
        what: str,
        unless: Callable[[BaseException], bool] | None = None,
        passing: tuple[type[Exception], ...] = _NOT_CONNECTED,
    ) -> None:
        """
        Attempt until it succeeds; at the deadline, raise what the last attempt raised.

        Args:
            attempt: Fails with one of ``passing`` to be called again.
            seconds: Until the deadline; None: forever.
            what: What the caller of the library has called, for the log.
            unless: Returns whether the cause of an error is one that no attempt can mend.
            passing: Errors that may pass by themselves, and are no ConfigurationError.
        """
        loop = asyncio.get_running_loop()
        deadline = inf if seconds is None else loop.time() + seconds
        delays = Delays(self._backoff)
        delays.next()  # the first attempt is made at once
        while True:
            try:
                return await attempt()
            except (ConfigurationError, PoolerError):
                raise
            except passing as error:
                if unless is not None and error.__cause__ and unless(error.__cause__):
                    raise
                delay = delays.next()
                if loop.time() + delay > deadline:
                    raise
                self._warn(error, what, seconds)
            await asyncio.sleep(delay)

    def _warn(self, error: Exception, what: str, seconds: float | None) -> None:
        limit = "" if seconds is None else f" for {seconds:g} s"
        cause, target = describe_error(error), self._connections.target
        text = "%s: %s; %s keeps trying%s"
        told = (target, cause, what, limit)
        log.warning(self._warnings, (what, cause), text, *told, target=target)

    async def publish(self, publish: Attempt, seconds: float) -> None:
        """
        Publish a notification; say that nothing was sent only if that holds of each attempt.

        Raises:
            ConnectionLostError: One attempt at least may have sent the notification.
            Exception: What the last attempt raised; no attempt has sent anything.
        """
        may_have_been_sent = False

        async def attempt() -> None:
            nonlocal may_have_been_sent
            try:
                await publish()
            except ConnectionLostError:
                may_have_been_sent = True
                raise

        try:
            await self.until_success(attempt, seconds, what="notify(retry=True)")
        except ConnectionLostError:
            raise
        except Exception as error:
            if not may_have_been_sent:
                raise
            msg = f"an earlier attempt may have been sent; the last one: {describe_error(error)}"
            raise ConnectionLostError(msg) from error
