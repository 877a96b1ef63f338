"""
Many clients over one listener: who may listen to what, and how much each may cost.

::

    from asyncnotify.ext.fanout import Fanout

    fanout = Fanout(listener, authorize=may_listen, max_channels=1_000, buffer=100)

    async with fanout.subscribe([name], user) as stream:
        async for item in stream:  # Notification | Gap
            ...

It knows no framework: the integrations with web frameworks are made of it. The module's path is its
API, with the names in ``__all__``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
)
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, get_args, overload

from asyncnotify import AsyncNotifyError, Channel, Gap, Listener, Notification, Stream
from asyncnotify._arguments import (
    check_count,
    check_function,
    check_plain_function,
    check_takes,
    check_timeout,
    type_name,
)
from asyncnotify._channels.arguments import channels_of
from asyncnotify.typing import Overflow

__all__ = ["ChannelNotAllowedError", "ClientT", "Fanout", "TooManyChannelsError"]

ClientT = TypeVar("ClientT")
"""What the application calls a client: a user, a request, a WebSocket."""

T = TypeVar("T")

_Authorize: TypeAlias = Callable[[ClientT, str], bool | Awaitable[bool]]
_Items: TypeAlias = AbstractAsyncContextManager[Stream[Notification[T] | Gap]]

DEFAULT_MAX_CHANNELS: Final = 1_000
DEFAULT_BUFFER: Final = 1_000


class ChannelNotAllowedError(AsyncNotifyError, PermissionError):
    """
    The client may not listen to a channel: ``authorize`` has said so.

    Attributes:
        channel: The name of the channel.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self.channel = channel

    def __str__(self) -> str:
        return f"the client may not listen to channel {self.channel!r}"


class TooManyChannelsError(AsyncNotifyError):
    """
    All clients together would listen to more channels than ``max_channels`` allows.

    Attributes:
        limit: How many channels are allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"all clients together listen to {self.limit} channels already, which is the limit"


class Fanout(Generic[ClientT]):
    """
    Give each of many clients a stream of its own, over one LISTEN for each channel.

    A client that is slow delays no other: it has a buffer of its own with a bound. When a client
    leaves, its stream is closed, and the listener stops listening to a channel with the last
    client of it. The fan-out keeps nothing of a client that has left, whatever has ended it.

    It neither starts nor closes the listener. To be used from the listener's event loop.

    Args:
        listener: A Listener, or a function without arguments that returns the present one, for
            applications that start more than once.
        authorize: Called as ``authorize(client, channel)``, with the name of each channel that a
            client asks for; a plain function or an ``async def``. What is not true refuses the
            client. None allows every name: names that clients make up must not get this far then.
        max_channels: How many different channels all clients together may listen to.
        buffer: How many notifications may wait for one client.
        overflow: What happens when more wait: ``"drop_oldest"`` or ``"drop_newest"`` puts a Gap at
            that place of the client's stream; ``"fail"`` ends the stream with BufferOverflowError.
        timeout: Seconds for which a client waits for the server to confirm LISTEN; None: forever,
            so that clients who come during an outage are served when it is over.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: A number, or ``overflow``, is not one of those allowed.
    """

    def __init__(
        self,
        listener: Listener | Callable[[], Listener],
        *,
        authorize: _Authorize[ClientT] | None = None,
        # limits
        max_channels: int = DEFAULT_MAX_CHANNELS,
        buffer: int = DEFAULT_BUFFER,
        overflow: Overflow = "drop_oldest",
        timeout: float | None = None,
    ) -> None:
        check_count("max_channels", max_channels)
        check_count("buffer", buffer)
        _check_overflow(overflow)
        check_timeout("timeout", timeout)
        if authorize is not None:
            check_function("authorize", authorize)
            check_takes("authorize", authorize, "the client", "the channel")
        self._listener = getter_of(listener)
        self._authorize = authorize
        self._max_channels = max_channels
        self._buffer = buffer
        self._overflow: Overflow = overflow
        self._timeout = timeout
        self._clients: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Fanout of {len(self._clients)} channels>"

    @property
    def channels(self) -> frozenset[str]:
        """The channels that clients listen to now."""
        return frozenset(self._clients)

    @overload
    def subscribe(self, channels: Collection[str], client: ClientT) -> _Items[str]: ...

    @overload
    def subscribe(self, channels: Collection[Channel[T]], client: ClientT) -> _Items[T]: ...

    @overload
    def subscribe(
        self, channels: Collection[str | Channel[Any]], client: ClientT
    ) -> _Items[Any]: ...

    @contextlib.asynccontextmanager
    async def subscribe(
        self, channels: Collection[str | Channel[Any]], client: ClientT
    ) -> AsyncGenerator[Stream[Notification[Any] | Gap]]:
        """
        Let a client listen to channels for as long as the block runs.

        ``async with fanout.subscribe(…) as stream`` is ``check()``, and then ``stream()``. The
        block is entered once the server has confirmed; the first item of the stream is a Gap.

        Args:
            channels: One at least: names, or Channels, which decode the payloads.
            client: What ``authorize`` is called with.

        Raises:
            ChannelNotAllowedError: The client may not listen to one of them.
            TooManyChannelsError: There would be more channels than ``max_channels``.
            BufferOverflowError: From the stream: with ``overflow="fail"`` the client was too slow.
            ChannelNameError: A name is not valid for a channel.
            ChannelDirectionError: A Channel was made without ``decode``.
            TypeError: No channel is given, or one in two forms.
            ListenTimeoutError: The server did not confirm within ``timeout``.
            NotStartedError: The listener has not been started.
            ClosedError: The listener has been closed.
            WrongLoopError: The listener runs in another event loop or process.
            Exception: What ``authorize`` raised.
        """
        await self.check(channels, client)
        async with self.stream(channels) as stream:
            yield stream

    async def check(self, channels: Collection[str | Channel[Any]], client: ClientT) -> None:
        """
        Return if the client may listen to all of these channels, before anything is opened.

        For a refusal that has to be answered before the client is served, such as before a
        WebSocket is accepted.

        Raises:
            ChannelNotAllowedError: The client may not listen to one of them.
            TooManyChannelsError: There would be more channels than ``max_channels``.
            ChannelNameError: A name is not valid for a channel.
            ChannelDirectionError: A Channel was made without ``decode``.
            TypeError: No channel is given, or one in two forms.
            Exception: What ``authorize`` raised.
        """
        names = _names_of(channels)
        for name in names:
            if not await self._allows(client, name):
                raise ChannelNotAllowedError(name)
        self._check_room(names)

    @overload
    def stream(self, channels: Collection[str]) -> _Items[str]: ...

    @overload
    def stream(self, channels: Collection[Channel[T]]) -> _Items[T]: ...

    @overload
    def stream(self, channels: Collection[str | Channel[Any]]) -> _Items[Any]: ...

    @contextlib.asynccontextmanager
    async def stream(
        self, channels: Collection[str | Channel[Any]]
    ) -> AsyncGenerator[Stream[Notification[Any] | Gap]]:
        """
        Listen to channels for as long as the block runs, for a client that may: see ``check()``.

        Raises:
            Exception: As of ``subscribe()``, without those of ``authorize``.
        """
        names = _names_of(channels)
        with self._counted(names):
            async with self._listener().stream(
                *channels,
                gaps=True,
                buffer=self._buffer,
                overflow=self._overflow,
                timeout=self._timeout,
            ) as stream:
                yield stream

    async def _allows(self, client: ClientT, name: str) -> bool:
        if self._authorize is None:
            return True
        answer = self._authorize(client, name)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    @contextlib.contextmanager
    def _counted(self, names: Collection[str]) -> Generator[None]:
        """Count a client of these channels for as long as the block runs."""
        self._check_room(names)
        self._clients.update(names)
        try:
            yield
        finally:
            self._clients.subtract(names)
            for name in names:
                if not self._clients[name]:
                    del self._clients[name]

    def _check_room(self, names: Iterable[str]) -> None:
        new = sum(name not in self._clients for name in names)
        if new and len(self._clients) + new > self._max_channels:
            raise TooManyChannelsError(self._max_channels)


def getter_of(listener: object) -> Callable[[], Listener]:
    """
    Return a function that returns the listener: it is given, or a function that returns it.

    Raises:
        TypeError: It is neither of the two.
    """
    if isinstance(listener, Listener):
        return lambda: listener
    if isinstance(listener, type) or not callable(listener):
        what = (
            f"the class {listener.__name__}" if isinstance(listener, type) else type_name(listener)
        )
        msg = (
            "listener must be a Listener, or a function without arguments that returns one, not"
            f" {what}"
        )
        raise TypeError(msg)
    check_plain_function("listener", listener)
    return cast("Callable[[], Listener]", listener)


def _check_overflow(overflow: object) -> None:
    if overflow not in get_args(Overflow):
        choices = ", ".join(map(repr, get_args(Overflow)))
        msg = f"overflow must be one of {choices}, not {overflow!r}"
        raise ValueError(msg)


def _names_of(channels: object) -> tuple[str, ...]:
    """Return the names, each once; refuse what no stream could be made of."""
    if isinstance(channels, str | Channel) or not isinstance(channels, Collection):
        msg = f"channels must be a list of names or Channels, not of type {type_name(channels)}"
        raise TypeError(msg)
    if not channels:
        msg = "channels must be a list of names or Channels, with one at least"
        raise TypeError(msg)
    return tuple(channels_of(cast("Collection[object]", channels)))
