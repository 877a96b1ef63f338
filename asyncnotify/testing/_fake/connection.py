"""A connection to the fake server: commands with deadlines, and their answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from asyncnotify.testing._fake.failures import CutError, NeverSentError
from asyncnotify.testing._fake.outbox import Outbox, call_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.testing._fake.state import State

T = TypeVar("T")


class FakeConnection:
    """
    A client's connection. It belongs to the event loop in which it was made.

    Args:
        state: The server.
        timeout: Seconds in which the server has to answer each command; None: forever.
    """

    def __init__(self, state: State, timeout: float | None) -> None:
        self.state = state
        self.timeout = timeout
        self.pid = self.told_pid = state.new_pid()
        self.channels: set[str] = set()
        self.lost = False
        self.notice: str | None = None
        self.outbox = Outbox(asyncio.get_running_loop(), state.lock)
        self._loop = asyncio.get_running_loop()
        self._answers: set[asyncio.Future[Any]] = set()
        if state.frozen:
            self.pause()
        state.enter(self)

    # -- the client's side --------------------------------------------------------------------

    async def command(self, effect: Callable[[], T], timeout: float | None = None) -> T:
        """
        Have the server do something, and return its answer.

        A command that exceeds its time, or is cancelled, ends the connection.

        Raises:
            NeverSentError: The connection was gone before.
            CutError: The connection was lost before the answer came.
            TimeoutError: The answer did not come in time.
        """
        if self.lost:
            msg = "the connection is closed"
            raise NeverSentError(msg)
        seconds = self.timeout if timeout is None else timeout
        self.state.count_command()
        answer: asyncio.Future[T] = self._loop.create_future()
        self._answers.add(answer)
        try:
            self.state.process(lambda: self._perform(effect, answer))
            await self._wait(answer, seconds)
        except BaseException:
            self.terminate()
            raise
        finally:
            self._answers.discard(answer)
        if not answer.done():
            self.terminate()
            msg = f"the server did not answer within {seconds:.3g} s"
            raise TimeoutError(msg)
        return answer.result()

    async def _wait(self, answer: asyncio.Future[Any], seconds: float | None) -> None:
        """Wait for an answer; once more, whenever something was sent meanwhile."""
        sent = None
        while not answer.done() and sent != self.outbox.sent:
            sent = self.outbox.sent
            await asyncio.wait({answer}, timeout=seconds)

    def terminate(self) -> None:
        """Drop the connection at once. Nothing of it is delivered from here on."""
        self.lost = True
        self.state.leave(self)
        self.outbox.clear()
        self._fail_all()

    async def close(self, timeout: float) -> None:  # noqa: ARG002 - there is nothing to wait for
        """Close the connection."""
        self.terminate()

    async def rest(self) -> bool:
        """Nothing is to be sent for now: the connection is kept."""
        return True

    # -- the server's side --------------------------------------------------------------------

    def _perform(self, effect: Callable[[], T], answer: asyncio.Future[T]) -> None:
        if self.lost:
            return
        try:
            result = effect()
        except Exception as error:  # noqa: BLE001 - it is the answer
            self._reply(_refuse, answer, error)
        else:
            self._reply(_answer, answer, result)

    def _reply(self, reply: Callable[..., object], *args: object) -> None:
        if not self.lost:  # by what it was asked to do
            self.outbox.put(self.state.delay, reply, *args)

    def send(self, pid: int, channel: str, payload: str) -> None:
        """Send a notification to the client."""
        self.outbox.put(self.state.delay, self.take, pid, channel, payload)

    def take(self, pid: int, channel: str, payload: str) -> None:
        """Take a notification, in the client's loop. One that only sends drops it."""

    def forget_channels(self) -> None:
        """Listen on nothing."""
        self.channels.clear()

    def pause(self) -> None:
        """Send nothing: the server is frozen."""
        self.outbox.pause("frozen")

    def resume(self) -> None:
        """Send again."""
        self.outbox.resume("frozen")

    def cut(self, notice: str | None) -> None:
        """Cut the connection: what has not arrived is lost."""
        self.notice, self.lost = notice, True
        self.outbox.clear()
        call_in(self._loop, self._was_cut)

    def _was_cut(self) -> None:
        self._fail_all()

    def _fail_all(self) -> None:
        for answer in self._answers:
            _refuse(answer, CutError(self.notice or "the connection was lost"))


def _answer(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _refuse(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # retrieve it: the command may have been cancelled
