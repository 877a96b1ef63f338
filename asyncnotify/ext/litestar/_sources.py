"""A listener, or a log, for as long as an application runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from asyncnotify import (
    ConnectError,
    ConnectionLostError,
    ExponentialBackoff,
    Listener,
    NotStartedError,
    State,
)
from asyncnotify._arguments import check_plain_function, check_present
from asyncnotify._publishing.retrying import Retrying
from asyncnotify.log import Log, StandbyError
from asyncnotify.typing import Dsn

ListenerSource: TypeAlias = Dsn | Listener | Callable[[], Listener] | None
LogSource: TypeAlias = Log | Callable[[], Log]

INSTALL_TIMEOUT: Final = 30.0
"""Seconds, as a listener's ``start_timeout``."""


class Target(NamedTuple):
    """
    What attempts lead to, for logs.

    Attributes:
        target: Its name.
    """

    target: str


RunT = TypeVar("RunT", bound=Listener | Log)


class Running(Generic[RunT]):
    """
    Starts what an application uses, and closes it at the end; as often as the application runs.

    Args:
        kind: Listener or Log.
        source: One of these, or a function that returns one, the same or another at each start.
        before: Called with it before it is started.

    Raises:
        TypeError: The source is neither.
    """

    def __init__(
        self,
        kind: type[RunT],
        source: RunT | Callable[[], RunT],
        before: Callable[[RunT], Awaitable[None]] | None = None,
    ) -> None:
        self._kind = kind
        self._make = source if callable(source) else lambda: source
        self._before = before
        self._present: RunT | None = None
        self._is_ours = False
        if callable(source):
            check_plain_function("source", source)
        else:
            self._check(source)

    @property
    def present(self) -> RunT:
        """
        What runs.

        Raises:
            NotStartedError: The application does not run.
        """
        if self._present is None:
            msg = (
                f"the {self._kind.__name__.lower()} runs while the application does: its lifespan"
                " has not begun, or is over"
            )
            raise NotStartedError(msg)
        return self._present

    @property
    def is_running(self) -> bool:
        """Whether there is something that runs."""
        return self._present is not None

    async def start(self) -> RunT:
        """
        Start it, unless somebody else has; that one then closes it, too.

        Raises:
            TypeError: The function has returned something else.
            AsyncNotifyError: As of the method ``start()``.
        """
        made = self._make()
        self._check(made)
        self._is_ours = not (isinstance(made, Listener) and _runs(made))
        try:
            if self._before is not None:
                await self._before(made)
            await made.start()
        except BaseException:
            if self._is_ours:
                await made.aclose()
            raise
        self._present = made
        return made

    async def close(self) -> None:
        """Close it, if it was started here. Idempotent."""
        present, self._present = self._present, None
        if present is not None and self._is_ours:
            await present.aclose()

    def _check(self, source: object) -> None:
        check_present(self._kind.__name__.lower(), source, self._kind)


def _runs(listener: Listener) -> bool:
    return listener.state not in {State.NEW, State.CLOSED}


def listener_from(source: ListenerSource) -> Running[Listener]:
    """
    Return what runs the listener of a source.

    Raises:
        TypeError: The source is of another kind.
    """
    if not isinstance(source, Listener) and not callable(source):
        source = Listener(source)
    return Running(Listener, source)


def log_from(source: LogSource, *, install: bool) -> Running[Log]:
    """
    Return what runs the log of a source, and installs it before, if that is wanted.

    Raises:
        TypeError: The source is of another kind.
    """
    return Running(Log, source, _install if install else None)


async def _install(log: Log) -> None:
    retrying = Retrying(Target(f"log {log.name!r}"), ExponentialBackoff())
    await retrying.until_success(
        log.install,
        INSTALL_TIMEOUT,
        what="install()",
        unless=_is_refused,
        passing=(ConnectError, ConnectionLostError, StandbyError),
    )


def _is_refused(cause: BaseException) -> bool:
    """Return whether the server has refused the role or the database: retrying does not help."""
    return str(getattr(cause, "sqlstate", "")).startswith(("28", "3D"))
