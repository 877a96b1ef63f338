from __future__ import annotations

import gc
from typing import TYPE_CHECKING, cast

import pytest
from pydantic import PostgresDsn
from sqlalchemy import make_url

import asyncnotify.sources
from asyncnotify import ConfigurationError, Listener, Notifier
from asyncnotify._sources import DriversSource, notify_within, notify_within_thread, source_of
from asyncnotify.sources import Transaction, error_for_missing, register, registered

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify.sources import ListeningConnections, PublishingConnections

HOST = "source.invalid"
DSN = f"postgresql://joe:secret@{HOST}:6543/db"


class Source:
    """A source that opens nothing."""

    target = "nowhere"

    def listening(self, *, connect_timeout: float, timeout: float) -> ListeningConnections:
        """Is not called: nothing starts here."""
        raise NotImplementedError

    def publishing(
        self,
        *,
        connect_timeout: float,
        timeout: float,
        on_open: Callable[[int], None] | None = None,
    ) -> PublishingConnections:
        """Return what nothing is asked of but its name."""
        return cast("PublishingConnections", self)


class Recorder(Transaction):
    """A transaction that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def pg_notify(self, channel: str, payload: str) -> None:
        """Keep it."""
        self.sent.append((channel, payload))


def source(dsn: object) -> object:
    """Return where a listener of this DSN would take its connections."""
    return source_of(dsn, None, {}, keepalive=None, connect_timeout=1.0, start_timeout=1.0)


def test_what_is_public_is_listed() -> None:
    """Sorted, as everywhere."""
    assert asyncnotify.sources.__all__ == sorted(asyncnotify.sources.__all__)


@pytest.mark.parametrize(
    "dsn",
    [
        DSN,
        DSN.replace("postgresql://", "postgresql+asyncpg://"),
        make_url(DSN),
        PostgresDsn(DSN),
        f"postgres://{HOST.upper()}",
    ],
)
def test_a_registered_host_is_served_by_its_source(dsn: object) -> None:
    """Whatever else the DSN says, and whether it is a text or an object."""
    registered_source = Source()
    register(HOST, registered_source)
    assert source(dsn) is registered_source


@pytest.mark.parametrize("dsn", [None, "postgresql://localhost/db", "postgresql:///db", 7])
def test_other_dsns_are_the_drivers(dsn: object) -> None:
    """A registration changes nothing for anyone else."""
    registered_source = Source()
    register(HOST, registered_source)
    assert registered(dsn) is None


def test_a_dsn_that_cannot_be_read_is_refused_as_ever() -> None:
    """The registry makes no error of its own of it."""
    registered_source = Source()
    register(HOST, registered_source)
    with pytest.raises(ConfigurationError):
        source("postgresql://[::1/db")


def test_a_registration_ends_with_its_source() -> None:
    """Nothing has to be taken back; where its host is below .invalid, its end is told."""
    register("elsewhere", Source())
    register(HOST, Source())
    gc.collect()
    assert registered("postgresql://elsewhere/db") is None
    with pytest.raises(ConfigurationError, match=f"{HOST} is gone: keep a reference"):
        registered(DSN)
    assert isinstance(source("postgresql://localhost/db"), DriversSource)


def test_both_faces_name_their_source() -> None:
    """Where they are connected to, or will be, is seen in what they look like."""
    registered_source = Source()
    register(HOST, registered_source)
    assert "nowhere" in repr(Listener(DSN))
    assert repr(Notifier(DSN)) == "<Notifier nowhere>"


async def test_a_transaction_of_a_source_takes_notifications() -> None:
    """By its one method, from tasks as from threads."""
    transaction = Recorder()
    await notify_within(transaction, "orders", "1")
    notify_within_thread(transaction, "orders", "2")
    assert transaction.sent == [("orders", "1"), ("orders", "2")]


async def test_what_only_looks_like_a_transaction_is_refused() -> None:
    """A class has to say that it is one: a mock has any method, and would swallow it all."""

    class Other:
        def pg_notify(self, channel: str, payload: str) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match="connection must be"):
        await notify_within(Other(), "orders", "1")
    with pytest.raises(TypeError, match="connection must be"):
        notify_within_thread(Other(), "orders", "1")


class Poor:
    """A source that says by itself what it lacks."""

    def error_for_missing(self, what: str) -> Exception:
        """Return the error."""
        return LookupError(what)


def test_a_source_says_what_it_lacks() -> None:
    """By an error of its own, or else by a ConfigurationError."""
    assert repr(error_for_missing(Poor(), "locks")) == "LookupError('locks')"
    error = error_for_missing(Source(), "locks")
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith("locks need a PostgreSQL server")
