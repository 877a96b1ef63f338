"""What a peer may say before it has accepted the session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._asyncpg._connecting.handshake import Frames, HandshakeGuard

GREETING = b"R\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x0ax\0y\0zz" + b"K\0\0\0\x0c\0\0\0\x07\0\0\0\x01"
READY = b"Z\0\0\0\x05I"
NO_POSTGRES = [
    pytest.param(b"\0\0\0\0\0", id="zeros"),
    pytest.param(b"\0\0\0\0\x04", id="type zero"),
    pytest.param(b"R\0\0\0\x03", id="too short"),
    pytest.param(b"S\xff\xff\xff\xff", id="negative"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
    pytest.param(GREETING + b"\0\0\0\0\0", id="zeros after a greeting"),
]


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into pieces of these sizes, and a last one."""
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [*pieces, data[position:]]


@given(st.lists(st.integers(0, 9), max_size=20))
def test_a_greeting_passes_however_it_is_cut(sizes: list[int]) -> None:
    """The server is ready as soon as it has said so, and not before."""
    frames = Frames()
    assert not any(frames.read(piece) for piece in chunks(GREETING, sizes))
    assert True in [frames.read(piece) for piece in chunks(READY, sizes)]


@pytest.mark.parametrize("data", NO_POSTGRES)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_r54_what_is_no_message_is_refused_however_it_is_cut(data: bytes, sizes: list[int]) -> None:
    """Its type and its length are looked at as soon as they are there."""
    frames = Frames()
    with pytest.raises(ValueError, match="does not speak the protocol"):  # noqa: PT012 - any piece
        for piece in chunks(data, sizes):
            frames.read(piece)


class Protocol(asyncio.Protocol):
    """The driver's side: notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        self.told.append(transport)

    def data_received(self, data: bytes) -> None:
        """Note it."""
        self.told.append(data)

    def eof_received(self) -> None:
        """Note it."""
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.told.append(exc)

    def pause_writing(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Note it."""
        self.told.append("resume")


class Transport(asyncio.Transport):
    """The loop's side."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.aborted = False

    def set_protocol(self, protocol: Any) -> None:
        """Let another protocol take what arrives."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """Return the one that does."""
        return self.protocol

    def is_closing(self) -> bool:
        """Return whether it is over."""
        return self.aborted

    def abort(self) -> None:
        """End."""
        self.aborted = True


class Handshake:
    """A guard between a transport and the driver."""

    def __init__(self) -> None:
        self.refusals: list[Exception] = []
        self.driver, self.transport = Protocol(), Transport()
        self.transport.protocol = HandshakeGuard(self.driver, self.refusals.append)
        self.transport.protocol.connection_made(self.transport)

    def receive(self, data: bytes) -> None:
        """Let data arrive."""
        self.transport.protocol.data_received(data)


def test_when_the_server_is_ready_the_guard_leaves() -> None:
    """What follows costs nothing: the driver has the transport to itself."""
    handshake = Handshake()
    handshake.receive(GREETING)
    assert handshake.transport.protocol is not handshake.driver
    handshake.receive(READY)
    assert handshake.transport.protocol is handshake.driver
    assert handshake.driver.told == [handshake.transport, GREETING, READY]


@pytest.mark.parametrize("data", NO_POSTGRES)
def test_r54_the_driver_never_reads_what_is_no_message(data: bytes) -> None:
    """The connection is ended, and the reason is told."""
    handshake = Handshake()
    handshake.receive(data)
    assert handshake.driver.told == [handshake.transport]
    assert handshake.transport.aborted
    assert len(handshake.refusals) == 1


async def test_r54_the_protocol_after_an_answer_without_tls_is_guarded_as_well() -> None:
    """The driver asks for TLS with one protocol, and goes on with another if there is none."""
    handshake, second = Handshake(), Protocol()
    handshake.receive(b"N")
    handshake.transport.set_protocol(second)
    await asyncio.sleep(0)
    handshake.receive(b"\0\0\0\0\0")
    assert second.told == []
    assert len(handshake.refusals) == 1


async def test_a_notice_that_comes_byte_by_byte_is_no_such_answer() -> None:
    """The same protocol goes on, and the guard has missed nothing."""
    handshake = Handshake()
    notice = b"N\0\0\0\x05\0"
    for position in range(len(notice)):
        handshake.receive(notice[position : position + 1])
        await asyncio.sleep(0)
    handshake.receive(READY)
    assert handshake.transport.protocol is handshake.driver


def test_all_else_is_passed_on() -> None:
    """The driver learns of pauses and of the end."""
    handshake = Handshake()
    guard = handshake.transport.protocol
    guard.pause_writing()
    guard.resume_writing()
    guard.eof_received()
    guard.connection_lost(None)
    assert handshake.driver.told == [handshake.transport, "pause", "resume", "eof", None]
