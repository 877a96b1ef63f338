"""notify(connection=…) from threads: within the transaction of the caller's, on each driver."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from asyncnotify import BlockingListener, BlockingNotifier, Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.blocking.conftest import Inbox

    Opener = Callable[[str], Any]


@contextmanager
def by_psycopg(dsn: str) -> Generator[Any]:
    """Have psycopg's connection."""
    with psycopg.connect(dsn) as connection:
        yield connection


@contextmanager
def by_psycopg_with_raw_cursors(dsn: str) -> Generator[Any]:
    """Have psycopg's connection, whose cursors take PostgreSQL's own placeholders."""
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        yield connection


@contextmanager
def by_sqlalchemy(dsn: str) -> Generator[Any]:
    """Have a connection of SQLAlchemy's."""
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def by_session(dsn: str) -> Generator[Any]:
    """Have a session of SQLAlchemy's."""
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with Session(engine) as session:
        yield session


OPENERS: Final[dict[str, Opener]] = {
    "psycopg": by_psycopg,
    "psycopg raw": by_psycopg_with_raw_cursors,
    "SQLAlchemy connection": by_sqlalchemy,
    "SQLAlchemy session": by_session,
}


@pytest.fixture(params=OPENERS)
def connection(request: pytest.FixtureRequest, dsn: str) -> Iterator[Any]:
    """A connection of the caller's, of each kind."""
    with OPENERS[request.param](dsn) as connection:
        yield connection


def test_it_arrives_on_commit_and_never_after_a_rollback(
    listener: BlockingListener,
    connection: Any,
    inbox: Inbox,
) -> None:
    """Neither face needs a connection of its own for that."""
    numbers = Channel("numbers", int)
    listener.listen(numbers, inbox)
    for face in (
        BlockingNotifier("postgresql://nowhere"),
        BlockingListener("postgresql://nowhere"),
    ):
        face.notify(numbers, 1, connection=connection)
        connection.rollback()
        face.notify(numbers, 2, connection=connection)
        connection.commit()
        assert inbox.payloads(1) == [2]


@pytest.mark.parametrize("face", [BlockingListener, BlockingNotifier])
def test_what_is_no_connection_for_threads_is_refused(face: Any, dsn: str) -> None:
    """The TypeError says what is taken instead; retrying a part of a transaction is refused."""
    of_sqlite = sqlite3.connect(":memory:")
    for wrong in (5, of_sqlite, create_engine("sqlite://")):
        with pytest.raises(TypeError, match="connection must be SQLAlchemy's Connection or"):
            face().notify("orders", connection=wrong)
    of_sqlite.close()
    with (
        psycopg.connect(dsn) as connection,
        pytest.raises(TypeError, match="retry= cannot be combined with connection="),
    ):
        face().notify("orders", connection=connection, retry=True)


@pytest.mark.parametrize("opener", ["SQLAlchemy connection", "SQLAlchemy session"])
def test_r47_errors_below_sqlalchemy_are_sqlalchemys(opener: str, dsn: str) -> None:
    """In an aborted transaction, without the payload; after a rollback the connection is good."""
    notifier = BlockingNotifier("postgresql://nowhere")
    with OPENERS[opener](dsn) as connection:
        for _ in range(2):
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1 / 0"))
            with pytest.raises(DBAPIError, match="aborted") as caught:
                notifier.notify("orders", "a secret", connection=connection)
            assert not caught.value.connection_invalidated
            assert "a secret" not in str(caught.value)
            connection.rollback()
            notifier.notify("orders", "1", connection=connection)
            connection.rollback()


def test_r47_a_connection_below_sqlalchemy_that_is_lost_is_replaced(
    listener: BlockingListener, dsn: str, inbox: Inbox
) -> None:
    """The error says that it is invalid; after a rollback the engine connects anew."""
    listener.listen("orders", inbox)
    notifier = BlockingNotifier("postgresql://nowhere")
    with by_sqlalchemy(dsn) as connection, psycopg.connect(dsn, autocommit=True) as other:
        connection.execute(text("SELECT pg_advisory_lock(47)"))
        connection.commit()
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND objid = 47"
        )
        # returns once that one has ended
        other.execute("SELECT pg_advisory_lock(47), pg_advisory_unlock(47)")
        with pytest.raises(DBAPIError) as caught:
            notifier.notify("orders", "lost", connection=connection)
        assert caught.value.connection_invalidated
        connection.rollback()
        notifier.notify("orders", "again", connection=connection)
        connection.commit()
    assert inbox.payloads(1) == ["again"]
