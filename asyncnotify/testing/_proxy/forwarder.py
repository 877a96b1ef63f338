"""
Forwarding of bytes from one socket to another: one direction of a proxied connection.

Everything runs in readiness callbacks of the loop on raw non-blocking sockets: there is no task
and no transport, so that a call has taken effect when it returns, on any event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from asyncnotify.testing._proxy.conditions import Conditions, Cutoff

# How much one direction takes in while nothing may pass, as a socket's buffer would; then it
# stops reading.
WINDOW = 1 << 20
READ_SIZE = 1 << 18
READS = 4  # in one turn of the loop


class Ending(Enum):
    """How a peer ended its direction."""

    FIN = auto()
    RST = auto()


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a forwarder reports to its connection, and asks of it."""

    read: Callable[[Forwarder, bytes], None]
    source_ended: Callable[[Forwarder], None]
    pass_ending: Callable[[Forwarder, Ending], None]
    sink_died: Callable[[Forwarder], None]
    cut: Callable[[Cutoff], None]


class Forwarder:
    """Reads from one socket, queues what was read, and sends it to the other one."""

    def __init__(self, conditions: Conditions, callbacks: Callbacks) -> None:
        self._conditions = conditions
        self._callbacks = callbacks
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[float, memoryview | Ending]] = deque()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._source: socket.socket | None = None
        self._sink: socket.socket | None = None
        self._reading = self._writing = self._source_ended = False
        self.passed = 0
        self.paused = False
        self.done = False
        self.source_broken = False

    def attach(
        self, *, source: socket.socket | None = None, sink: socket.socket | None = None
    ) -> None:
        """Set the socket to read from or to send to, and begin to forward."""
        self._source = source or self._source
        self._sink = sink or self._sink
        self.pump()

    def put(self, item: bytes | Ending) -> None:
        """Queue bytes or the end behind what waits already."""
        if self.done:
            return
        content = item if isinstance(item, Ending) else memoryview(item)
        self._queue.append((self._loop.time(), content))
        self._queued += 0 if isinstance(content, Ending) else len(content)
        if self._timer is None:
            self.pump()
        else:
            self._read_or_not()

    def pump(self) -> None:
        """Pass on what may pass now; a timer or the sink calls it again for the rest."""
        self._stop_timer()
        while self._queue and not self._writing and self._may_pass():
            self._pass_head()
        self._read_or_not()

    def finish(self) -> None:
        """Pass nothing any more: discard what waits, and read and discard what comes."""
        self.done = True
        self._queue.clear()
        self._queued = 0
        self._stop_timer()
        self._stop_writing()
        self._read_or_not()

    def detach(self) -> None:
        """Stop using both sockets, before they are closed."""
        self._source_ended = True
        self.finish()
        self._source = self._sink = None

    def _may_pass(self) -> bool:
        if (
            self._sink is None
            or self.paused
            or self._conditions.black_hole
            or self._timer is not None
        ):
            return False
        arrived, item = self._queue[0]
        if isinstance(item, Ending) and self._conditions.hold_ending:
            return False
        wait = arrived + self._conditions.delay - self._loop.time()
        if self._conditions.delay and wait > 0:
            self._start_timer(wait)
            return False
        return True

    def _pass_head(self) -> None:
        _, item = self._queue[0]
        if isinstance(item, Ending):
            self._callbacks.pass_ending(self, item)
        else:
            self._pass_bytes(item)

    def _pass_bytes(self, data: memoryview) -> None:
        allowed = self._allowed(len(data))
        sent = self._send(data[:allowed]) if allowed else 0
        if self.done or (allowed and not sent):
            return
        self._drop_from_head(sent)
        self._count(sent)
        if self._conditions.chunk_size and not self.done:
            self._start_timer(self._conditions.interval)

    def _allowed(self, size: int) -> int:
        cutoff, chunk = self._conditions.cutoff, self._conditions.chunk_size
        return min(size, chunk or size, size if cutoff is None else cutoff.left)

    def _send(self, data: memoryview) -> int:
        """Return how much the kernel took: 0 if it is full (then wait) or the sink is dead."""
        assert self._sink is not None  # noqa: S101 - _may_pass() said so
        try:
            return self._sink.send(data)
        except (BlockingIOError, InterruptedError):
            self._writing = True
            self._loop.add_writer(self._sink, self._on_writable)
        except OSError:
            self._callbacks.sink_died(self)
        return 0

    def _drop_from_head(self, size: int) -> None:
        arrived, item = self._queue.popleft()
        self._queued -= size
        if isinstance(item, memoryview) and size < len(item):
            self._queue.appendleft((arrived, item[size:]))

    def _count(self, size: int) -> None:
        self.passed += size
        self._conditions.passed += size
        cutoff = self._conditions.cutoff
        if cutoff is None:
            return
        cutoff.left -= size
        if not cutoff.left:
            self._conditions.cutoff = None
            self._callbacks.cut(cutoff)

    def _read_or_not(self) -> None:
        wanted = not self._source_ended and self._queued < WINDOW
        if self._source is None or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self._source, self._on_readable, self._source)
        else:
            self._loop.remove_reader(self._source)

    def _on_readable(self, source: socket.socket) -> None:
        # Read on until there is nothing: uvloop does not poll again after data and RST at once.
        for _ in range(READS):
            if not self._read(source) or not self._reading:
                return
        self._loop.remove_reader(source)
        self._loop.add_reader(source, self._on_readable, source)

    def _read(self, source: socket.socket) -> bool:
        """Tell whether there may be more to read."""
        try:
            data = source.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._end(Ending.RST)
            return False
        if data:
            self._callbacks.read(self, data)
            self.put(data)
        else:
            # A send to the same socket has had its ECONNRESET, which is reported but once.
            self._end(Ending.RST if self.source_broken else Ending.FIN)
        return bool(data)

    def _end(self, ending: Ending) -> None:
        self._source_ended = True
        self._read_or_not()
        self.put(ending)
        self._callbacks.source_ended(self)

    def _on_writable(self) -> None:
        self._stop_writing()
        self.pump()

    def _stop_writing(self) -> None:
        if self._writing and self._sink is not None:
            self._loop.remove_writer(self._sink)
        self._writing = False

    def _start_timer(self, delay: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(delay, self.pump)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
