"""Reading events from any place on, without a trace in the database."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, overload

from asyncnotify import Channel, Gap
from asyncnotify._arguments import check_flag
from asyncnotify.log._methods.running import Running
from asyncnotify.log._names import check_channels
from asyncnotify.log._reading.stream import After, LogStream, check_after
from asyncnotify.log._values import Event

T = TypeVar("T")


class Reading(Running):
    """The method that reads."""

    @overload
    def read(
        self, *channels: str, after: After = ..., gaps: Literal[False] = False
    ) -> LogStream[Event[str]]: ...

    @overload
    def read(
        self, *channels: Channel[T], after: After = ..., gaps: Literal[False] = False
    ) -> LogStream[Event[T]]: ...

    @overload
    def read(
        self, *channels: str | Channel[Any], after: After = ..., gaps: Literal[False] = False
    ) -> LogStream[Event[Any]]: ...

    @overload
    def read(
        self, *channels: str, after: After = ..., gaps: bool
    ) -> LogStream[Event[str] | Gap]: ...

    @overload
    def read(
        self, *channels: Channel[T], after: After = ..., gaps: bool
    ) -> LogStream[Event[T] | Gap]: ...

    @overload
    def read(
        self, *channels: str | Channel[Any], after: After = ..., gaps: bool
    ) -> LogStream[Event[Any] | Gap]: ...

    def read(
        self, *channels: str | Channel[Any], after: After = "now", gaps: bool = False
    ) -> LogStream[Any]:
        """
        Return the events of some channels, in the order of the log, as an asynchronous iterator.

        First those that are there, then new ones as they are committed: nothing is missed and
        nothing comes twice. The server keeps nothing of a reader; to go on later, keep
        ``event.position``.

        Args:
            channels: Names, or Channels, which decode the payloads. None: all, as texts.
            after: Where to begin: behind an event, by its Position; before all that was committed
                at a time, an aware datetime, or later; ``"start"``: before all events that are
                kept; ``"now"``: behind all that are committed when the reader begins.
            gaps: Yield a Gap where events had been removed before they were read (``EXPIRED``), and
                in place of an event that cannot be decoded (``UNDECODABLE``) or that says "read
                again" (``REREAD``).

        Raises:
            ChannelNameError: One of the names cannot be that of a channel.
            TypeError: ``after`` is nothing of this, ``gaps`` is not a bool, or a channel is given
                in two forms.
            ValueError: ``after`` is a datetime without a time zone, or another word.
            WrongLoopError: The call came from another event loop or process.
        """
        check_after(after)
        check_flag("gaps", gaps)
        check_channels("read", channels)
        stream = self._running().stream(channels, after, gaps=gaps)
        if self._ends_new_streams:  # looked at afterwards: end_streams() may interrupt this
            stream.end_after_portion()
        return stream

    def end_streams(self, *, also_new: bool = False) -> None:
        """
        End every stream of ``read()``, after what it has read. The rest of the log keeps running.

        For a server that stops: it waits for its responses, and those that are fed by streams do
        not end by themselves. The call never waits: the streams end in the next turn of the event
        loop. Handlers and consumers go on, as they serve no client; so does an ``until_end()``,
        which ends by itself. The method may be called at any time, any number of times, from any
        thread, and from a signal handler.

        Args:
            also_new: End also each stream that is made later, at once, until the log is closed: a
                request that comes in on an open connection must not keep the server from stopping.

        Raises:
            TypeError: ``also_new`` is not a bool.
        """
        check_flag("also_new", also_new)
        self._ends_new_streams = self._ends_new_streams or also_new
        if self._runtime is not None:
            self._runtime.end_streams()
