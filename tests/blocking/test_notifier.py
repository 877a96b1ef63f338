from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    ChannelNameError,
    ClosedError,
    ConnectError,
    PayloadTooLargeError,
)
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncnotify.testing.server import PostgresServer
    from tests.blocking.conftest import Inbox

    InThreads = Callable[[int, Callable[[int], object]], list[object]]

WAIT_LIMIT = scaled(20.0)


def test_it_opens_at_the_first_call(dsn: str, listener: BlockingListener, inbox: Inbox) -> None:
    """Without start() the first notification connects, and close() ends it until start()."""
    listener.listen("orders", inbox)
    notifier = BlockingNotifier(dsn)
    notifier.notify("orders", "1")
    notifier.close()
    with pytest.raises(ClosedError):
        notifier.notify("orders", "late")
    notifier.close()
    notifier.start()
    notifier.notify("orders", "2", retry=True)
    notifier.close()
    assert inbox.payloads(2) == ["1", "2"]


def test_threads_send_at_once(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox, in_threads: InThreads
) -> None:
    """Notifications of 200 threads all arrive, each thread's in its order."""
    listener.listen("orders", inbox)

    def send(number: int) -> None:
        for i in range(5):
            notifier.notify("orders", f"{number} {i}")

    in_threads(200, send)
    arrived = inbox.payloads(1000)
    assert sorted(arrived) == sorted(f"{n} {i}" for n in range(200) for i in range(5))
    of_one = [payload for payload in arrived if payload.startswith("7 ")]
    assert of_one == [f"7 {i}" for i in range(5)]


def test_mistakes_are_the_callers(notifier: BlockingNotifier) -> None:
    """What cannot be sent is refused before anything is."""
    with pytest.raises(ChannelNameError):
        notifier.notify("")
    with pytest.raises(PayloadTooLargeError):
        notifier.notify("orders", "x" * 8000)
    with pytest.raises(TypeError, match="pool"):
        BlockingNotifier(pool=object())
    with pytest.raises(TypeError, match="pair"):
        notifier.notify_many([7])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


def test_many_are_taken_in_this_thread(
    listener: BlockingListener, notifier: BlockingNotifier, inbox: Inbox
) -> None:
    """notify_many() iterates in the thread that calls it, and sends all in order."""
    listener.listen("orders", inbox)
    threads: set[int] = set()

    def pairs() -> Iterator[tuple[str, str]]:
        for i in range(3500):
            threads.add(threading.get_ident())
            yield "orders", str(i)

    assert notifier.notify_many(pairs()) == 3500
    assert inbox.payloads(3500) == [str(i) for i in range(3500)]
    assert threads == {threading.get_ident()}
    assert notifier.notify_many([]) == 0


def test_many_that_fail_say_how_many_were_sent(notifier: BlockingNotifier) -> None:
    """What the iterable raises comes out, with a note on what had been sent before."""

    def pairs() -> Iterator[tuple[str, str]]:
        for i in range(2500):
            yield "orders", str(i)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        notifier.notify_many(pairs())
    assert caught.value.__notes__ == ["2000 notifications before it have been sent"]


def test_many_whose_notifier_is_closed_meanwhile_are_told_so(dsn: str) -> None:
    """Whatever the thread is at: its pairs come when the event loop is gone."""
    notifier = BlockingNotifier(dsn)
    asked, closed = threading.Event(), threading.Event()

    def pairs() -> Iterator[tuple[str, str]]:
        asked.set()
        closed.wait(WAIT_LIMIT)
        yield "orders", "1"

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(notifier.notify_many, pairs())
        assert asked.wait(WAIT_LIMIT)
        notifier.close(0)
        closed.set()
        with pytest.raises(ClosedError):
            sending.result(WAIT_LIMIT)


def test_there_is_no_connection() -> None:
    """A server that is not there is told of by start() and by each call, and all ends."""
    notifier = BlockingNotifier("postgresql://127.0.0.1:1/none", start_timeout=scaled(0.2))
    with pytest.raises(ConnectError):
        notifier.start()
    notifier = BlockingNotifier("postgresql://127.0.0.1:1/none")
    with pytest.raises(ConnectError):
        notifier.notify("orders")
    with pytest.raises(ConnectError):
        notifier.notify_many(("orders", str(i)) for i in range(3000))
    notifier.close()


def test_a_listener_sends_as_a_notifier_does(listener: BlockingListener, inbox: Inbox) -> None:
    """Many from an iterable of this thread, and one that is tried again if need be."""
    listener.listen("orders", inbox)
    assert listener.notify_many(("orders", str(i)) for i in range(1500)) == 1500
    listener.notify("orders", "again", retry=True)
    assert inbox.payloads(1501) == [*map(str, range(1500)), "again"]


def test_it_connects_as_an_engine_does(dsn: str, listener: BlockingListener, inbox: Inbox) -> None:
    """Its URL serves, and its pool is left alone; the password is not shown."""
    listener.listen("orders", inbox)
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    with BlockingNotifier.from_sqlalchemy(engine) as notifier:
        notifier.notify("orders", "1")
        assert repr(notifier) == f"<BlockingNotifier {engine.url.render_as_string()}>".replace(
            "postgresql+asyncpg://", ""
        )
    assert inbox.payloads(1) == ["1"]
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedin() == 0


def test_a_name_that_leads_nowhere_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own threads look names up: what the name service says comes out."""

    def fail(*_args: object, **_options: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    notifier = BlockingNotifier("postgresql://db.example/app", start_timeout=scaled(0.2))
    with pytest.raises(ConnectError) as caught:
        notifier.start()
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_a_timeout_of_close_that_cannot_be_is_refused(notifier: BlockingNotifier) -> None:
    """It changes nothing: the notifier goes on."""
    with pytest.raises(ValueError, match="timeout"):
        notifier.close(timeout=-1)
    notifier.notify("orders")


def test_after_a_start_that_failed_the_next_call_connects(own_server: PostgresServer) -> None:
    """As Notifier does: nobody has closed it, so it does not say so; closing it still counts."""
    notifier = BlockingNotifier(own_server.dsn, start_timeout=scaled(0.1))
    own_server.stop()
    with pytest.raises(ConnectError):
        notifier.start()
    with pytest.raises(ConnectError):
        notifier.notify("orders")
    with pytest.raises(ConnectError):
        notifier.start()
    own_server.start()
    notifier.notify("orders")
    notifier.close()
    with pytest.raises(ClosedError):
        notifier.notify("orders")
    own_server.stop()
    with pytest.raises(ConnectError):
        notifier.start()
    notifier.close()
    with pytest.raises(ClosedError):
        notifier.notify_many([("orders", "")])


def test_r53_a_start_that_fails_leaves_the_calls_of_other_threads(
    own_server: PostgresServer,
) -> None:
    """Each has the outcome of its own: nobody has closed the notifier."""
    tried, is_there = threading.Semaphore(0), threading.Event()

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        tried.release()
        if not is_there.is_set():
            raise ConnectionRefusedError
        return await asyncpg.connect(own_server.dsn)

    notifier = BlockingNotifier(
        connect=connect, start_timeout=scaled(0.5), backoff=lambda: repeat(0.05)
    )
    outcomes: list[BaseException | None] = []

    def send() -> None:
        try:
            notifier.notify("orders", retry=True)
        except BaseException as error:  # noqa: BLE001 - the outcome
            outcomes.append(error)
        else:
            outcomes.append(None)

    def fail_to_start() -> None:
        with pytest.raises(ConnectError):
            notifier.start()

    threads = [threading.Thread(target=target) for target in (fail_to_start, send)]
    threads[0].start()
    tried.acquire()
    threads[1].start()
    threads[0].join(WAIT_LIMIT)
    is_there.set()
    threads[1].join(WAIT_LIMIT)
    assert outcomes == [None]
    notifier.close()
