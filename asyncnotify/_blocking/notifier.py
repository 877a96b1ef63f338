"""The BlockingNotifier: publishing from threads. It wires the parts, and holds no logic."""

from __future__ import annotations

import asyncio
import functools
import itertools
import queue
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, overload

from asyncnotify._asyncpg.sqlalchemy import EngineConnect
from asyncnotify._backoff import ExponentialBackoff
from asyncnotify._blocking.gateway import Gateway
from asyncnotify._blocking.portal import Call, Portal
from asyncnotify._channels.arguments import encoded
from asyncnotify._channels.channel import Channel
from asyncnotify._errors import NotStartedError
from asyncnotify._keepalive import Keepalive
from asyncnotify._notifier import Notifier
from asyncnotify._publishing.batching import BATCH_COUNT
from asyncnotify._publishing.limits import DEFAULT_QUEUE
from asyncnotify.typing import Backoff, Connect

Pairs: TypeAlias = Iterable[tuple[str | Channel[Any], Any]]
Wanted: TypeAlias = queue.SimpleQueue[asyncio.Future[list[Any]] | None]

T = TypeVar("T")

_DEFAULT_BACKOFF = ExponentialBackoff()
_DEFAULT_KEEPALIVE = Keepalive()


class BlockingNotifier:
    """
    A Notifier for threads: the same face without ``await``.

    It runs an event loop in a daemon thread of its own. Calls of many threads that meet are sent
    together. ``with BlockingNotifier(dsn) as notifier`` opens and closes it; so do ``start()``
    and ``close()``. Without ``start()`` the first call opens it, so that one made by a module
    serves in every process that a web server forks afterwards.

    All methods may be called from any thread, except from its own event loop's, and may be
    interrupted by Ctrl-C. In a process forked after it was opened they raise WrongLoopError.

    Args:
        dsn: As for Listener.
        connect: As for Notifier: an async callable, called in the event loop.
        connect_timeout: Seconds for making a connection, for each host.
        operation_timeout: Seconds in which the server has to answer.
        keepalive: TCP keepalive for both ends; None leaves it as it is.
        backoff: As for Notifier.
        queue: Calls that may wait to be sent; those beyond wait for their place in the queue.
        start_timeout: Seconds for which ``start()`` keeps trying.
        retry_timeout: Seconds for which a call with ``retry=True`` keeps trying.
        close_timeout: Seconds for ``close()``, unless that is given others.
        connect_kwargs: Anything else that ``asyncpg.connect`` takes.

    Raises:
        TypeError: An argument is unknown, or excluded by another one.
        ValueError: A number is not positive.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        # connection
        connect: Connect | None = None,
        connect_timeout: float = 10.0,
        operation_timeout: float = 5.0,
        keepalive: Keepalive | None = _DEFAULT_KEEPALIVE,
        backoff: Backoff = _DEFAULT_BACKOFF,
        # limits
        queue: int = DEFAULT_QUEUE,
        start_timeout: float = 30.0,
        retry_timeout: float = 30.0,
        close_timeout: float = 5.0,
        **connect_kwargs: Any,  # noqa: ANN401 - as asyncpg.connect takes them
    ) -> None:
        if "pool" in connect_kwargs:
            msg = "a pool belongs to an event loop that is not this one's: give a DSN or connect="
            raise TypeError(msg)
        self._notifier = Notifier(
            dsn,
            connect=connect,
            connect_timeout=connect_timeout,
            operation_timeout=operation_timeout,
            keepalive=keepalive,
            backoff=backoff,
            queue=queue,
            start_timeout=start_timeout,
            retry_timeout=retry_timeout,
            close_timeout=close_timeout,
            **connect_kwargs,
        )
        self._gateway = Gateway(self._notifier.aclose, close_timeout)

    @classmethod
    def from_sqlalchemy(cls, engine: Any, **options: Any) -> Self:  # noqa: ANN401 - SQLAlchemy is an extra
        """
        Return a notifier that connects as this ``AsyncEngine`` of ``postgresql+asyncpg`` does.

        As for ``Listener.from_sqlalchemy()``.
        """
        return cls(connect=EngineConnect(engine), **options)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._notifier)[1:]}"

    # -- lifetime -----------------------------------------------------------------------------

    def start(self) -> None:
        """
        Connect; return once there is a connection.

        It need not be called: the first notification connects as well. It tells of a mistake
        early. After ``close()`` it begins anew.

        Raises:
            ConfigurationError: The DSN or another argument is wrong.
            ConnectError: There is still no connection after ``start_timeout``.
            WrongLoopError: This is the event loop's own thread, or another process.
        """
        portal, is_new = self._gateway.open()
        try:
            portal.call(self._notifier.start)
        except BaseException:
            if is_new:
                self._gateway.close(0)
            raise

    def close(self, timeout: float | None = None) -> None:
        """
        Send what has been accepted, and close the connection, the event loop and its thread.

        At the timeout, which is ``close_timeout`` unless one is given here, in seconds, what is
        still unsent is given up: its callers get a ClosedError. It returns within half a
        second after that, whatever happens. Idempotent.

        Raises:
            WrongLoopError: This is the event loop's own thread, or another process.
        """
        self._gateway.close(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None or not self._gateway.is_of_other_process:
            self.close()

    # -- publishing ---------------------------------------------------------------------------

    @overload
    def notify(self, channel: str, payload: str = "", *, retry: bool = ...) -> None: ...

    @overload
    def notify(self, channel: Channel[T], payload: T, *, retry: bool = ...) -> None: ...

    def notify(
        self, channel: str | Channel[Any], payload: object = "", *, retry: bool = False
    ) -> None:
        """
        Send a notification to everyone listening on ``channel``.

        It returns once the server has committed it. Nobody need have received it. One thread's
        notifications keep their order. Interrupting it leaves unknown whether it was sent.

        Args:
            channel: A name, or a Channel, which encodes the payload in this thread.
            payload: A text of 7,999 bytes at most, or what the Channel encodes.
            retry: Try again after a lost connection or a failed attempt to connect, for
                ``retry_timeout`` seconds. It may then arrive twice.

        Raises:
            ChannelNameError: The server would refuse the name.
            PayloadError: The payload cannot be encoded, or not be sent.
            PayloadTooLargeError: The payload is over 7,999 bytes.
            ConnectError: There is no connection: it was not sent.
            ConnectionLostError: The connection died in flight: it may have been sent.
            ClosedError: The notifier has been closed.
            WrongLoopError: This is the event loop's own thread, or another process.
        """
        name, text = encoded(channel, payload)
        self._portal().call(functools.partial(self._notifier.notify, name, text, retry=retry))

    def notify_many(self, pairs: Pairs) -> int:
        """
        Send many notifications, in their order; return how many.

        As ``Notifier.notify_many()``: in transactions of up to 1,000. ``pairs`` is iterated over
        in this thread, while the server works on what came before. Interrupting it leaves
        unknown whether the last transaction was sent.

        Args:
            pairs: Of channel and payload, as ``notify()`` takes them.

        Raises:
            Exception: What ``notify()`` raises, or what ``pairs`` raised; a note on it says how
                many had been sent.
        """
        portal, iterator = self._portal(), iter(pairs)
        wanted: Wanted = queue.SimpleQueue()
        sending = Call(functools.partial(self._notifier.notify_many, _handed_over(wanted)))
        sending.outcome.add_done_callback(lambda _: wanted.put(None))
        try:
            portal.begin(sending)
            while (request := wanted.get()) is not None:
                _answer(request, iterator)
            return sending.outcome.result()
        except BaseException:
            portal.abandon(sending)
            raise

    # -- inside -------------------------------------------------------------------------------

    def _portal(self) -> Portal:
        try:
            return self._gateway.portal
        except NotStartedError:
            return self._gateway.open()[0]


async def _handed_over(wanted: Wanted) -> AsyncIterator[Any]:
    """Yield what a thread takes from an iterable of its own, whenever more is wanted."""
    while True:
        portion: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        wanted.put(portion)
        if not (pairs := await portion):
            return
        for pair in pairs:
            yield pair


def _answer(request: asyncio.Future[list[Any]], iterator: Iterator[Any]) -> None:
    try:
        pairs = list(itertools.islice(iterator, BATCH_COUNT))
    except Exception as error:  # noqa: BLE001 - it is raised again, with a note
        request.get_loop().call_soon_threadsafe(_settle, request, [], error)
    else:
        request.get_loop().call_soon_threadsafe(_settle, request, pairs, None)


def _settle(request: asyncio.Future[list[Any]], pairs: list[Any], error: Exception | None) -> None:
    if request.done():
        return
    if error is None:
        request.set_result(pairs)
    else:
        request.set_exception(error)
