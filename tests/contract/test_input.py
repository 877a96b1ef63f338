"""Bad input is refused early, by errors that say what is wrong; good input in every form works."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from asyncnotify import (
    AsyncNotifyError,
    BlockingListener,
    BlockingNotifier,
    ChannelNameError,
    ConfigurationError,
    ConnectError,
    ConnectTimeoutError,
    Listener,
    Notification,
    Notifier,
)
from asyncnotify.testing.server import PostgresServer
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.contract.conftest import Database, Inbox, ListenerFactory

    Text = Inbox[Notification[str]]

BAD_NAMES: list[Any] = ["", "c" * 64, "é" * 32, "a\0b", "\0", "a\ud800", 7, None, b"orders"]
GOOD_NAMES = ["c" * 63, "é" * 31 + "c", "🙂" * 15, ' "', "\n"]


def nothing(_: Notification[str]) -> None:
    """Handle a notification by doing nothing."""


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def guarded(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server that asks the role ``guest`` for a password."""
    hba = ["host all guest 127.0.0.1/32 scram-sha-256"]
    with PostgresServer(template=template, hba=hba) as server:
        asyncio.run(make_guest(server.dsn))
        yield server


async def make_guest(dsn: str) -> None:
    """Make the role whose password is asked for."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE ROLE guest LOGIN PASSWORD 'se@cret/:1'")
    await connection.close()


async def works(listener: Listener) -> bool:
    """Return whether a notification goes round."""
    async with listener, listener.stream("orders") as stream:
        await listener.notify("orders", "1")
        return (await anext(stream)).payload == "1"


def with_host(dsn: str, *hosts: str, scheme: str = "postgresql", query: str = "") -> str:
    """Return the DSN with these ``host:port`` in place of its own."""
    parts = urlsplit(dsn)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit((scheme, f"{user}@{','.join(hosts)}", parts.path, query, ""))


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
async def test_bad_channel_names_are_refused_before_any_sql(
    listener: Listener,
    database: Database,
    name: Any,
) -> None:
    """Each way to name a channel raises ChannelNameError, a ValueError, naming the limit."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: listener.listen(name, nothing),
        lambda: listener.unlisten(name),
        lambda: listener.notify(name),
        lambda: anext(listener.stream("good", name)),
    ]
    before = await database.last_commands()
    for call in calls:
        with pytest.raises(ChannelNameError) as caught:
            await call()
        assert isinstance(caught.value, ValueError)
        assert caught.value.channel == name
    with pytest.raises(ChannelNameError):
        listener.on(name)
    assert listener.channels == frozenset()
    assert await database.last_commands() == before


@pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
async def test_names_at_the_limit_are_taken(
    listener: Listener, database: Database, inbox: Text, name: str
) -> None:
    """63 bytes, however many characters, are the same channel on both sides."""
    await listener.listen(name, inbox)
    await database.notify(name, "1")
    assert (await inbox.next()).channel == name


async def test_bad_options_are_refused_at_once(listener: Listener) -> None:
    """Counts, policies and callables are checked before anything is listened on."""
    options: list[dict[str, Any]] = [
        {"buffer": 0},
        {"buffer": 1.5},
        {"concurrency": 0},
        {"overflow": "block"},
    ]
    for option in options:
        with pytest.raises(ValueError, match=next(iter(option))):
            await listener.listen("orders", nothing, **option)
        with pytest.raises(ValueError, match=next(iter(option))):
            listener.on("orders", **option)(nothing)
    callables: list[dict[str, Any]] = [{"resync": 1}, {"on_error": "x"}]
    for option in callables:
        with pytest.raises(TypeError, match=next(iter(option))):
            await listener.listen("orders", nothing, **option)
    with pytest.raises(TypeError, match="handler"):
        await listener.listen("orders", None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(TypeError, match="at least one channel"):
        listener.stream()
    assert listener.channels == frozenset()


@pytest.mark.parametrize(
    "options",
    [
        {"hartbeat": 1},
        {"timeout": 5},
        {"connection_class": asyncpg.Connection},
        {"connect": asyncpg.connect, "dsn": "postgresql://localhost"},
        {"connect": asyncpg.connect, "password": "x"},
        {"connect": "postgresql://localhost"},
        {"dsn": 5},
        {"backoff": 1.0},
        {"on_event": 1.0},
        {"on_event": asyncio.sleep},
    ],
)
def test_wrong_arguments_raise_type_error(options: dict[str, Any]) -> None:
    """What is unknown, of the wrong type, or would go unused is refused by the constructor."""
    with pytest.raises(TypeError):
        Listener(**options)


@pytest.mark.parametrize("name", ["host", "port", "user", "database", "passfile", "service"])
@pytest.mark.parametrize("face", [Listener, Notifier, BlockingListener, BlockingNotifier])
def test_r48_a_function_is_refused_where_none_is_called(face: type[Any], name: str) -> None:
    """Password and ssl may be functions. Of another argument it would be left out in silence."""
    options: dict[str, Any] = {name: lambda: "elsewhere"}
    with pytest.raises(TypeError, match=f"{name} must be a (str|number), not of type function"):
        face(**options)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "5"])
@pytest.mark.parametrize(
    "name",
    [
        "connect_timeout",
        "heartbeat",
        "heartbeat_timeout",
        "operation_timeout",
        "start_timeout",
        "close_timeout",
    ],
)
def test_seconds_have_to_be_positive(name: str, value: object) -> None:
    """Every number of seconds is checked by the constructor, and named in the error."""
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        Listener(**options)


@pytest.mark.parametrize(
    "dsn",
    [
        "mysql://localhost/db",
        "localhost",
        "",
        "postgresql://user:pa#ss@word@host:5432/db",
        "postgresql://user@host:notaport/db",
        "postgresql+asyncpg://[::1/db",
        "postgresql://localhost/db?sslmode=perhaps",
    ],
)
async def test_a_wrong_dsn_is_a_configuration_error(dsn: str) -> None:
    """The constructor raises; no piece of the DSN that may be secret is in the text."""
    with pytest.raises(ConfigurationError) as caught:
        Listener(dsn)
    assert isinstance(caught.value, ValueError)
    assert "pa#ss" not in str(caught.value)


@pytest.mark.needs_server("tls")
async def test_a_wrong_ssl_argument_is_a_configuration_error(dsn: str) -> None:
    """A value that asyncpg does not know is not retried."""
    with pytest.raises(ConfigurationError, match="ssl"):
        await Listener(dsn, ssl="perhaps").start()


@pytest.mark.needs_server("tls")
async def test_a_server_without_tls_refuses_when_tls_is_required(dsn: str) -> None:
    """ssl="require" is never answered with a connection in clear text."""
    with pytest.raises(ConnectTimeoutError):
        await Listener(dsn, ssl="require", start_timeout=scaled(0.2)).start()


@pytest.mark.needs_server("driver")
async def test_a_database_that_is_not_there_is_refused_at_once(factory: ListenerFactory) -> None:
    """An unknown database is an error of the start, in one attempt, with the server's words."""
    listener = factory.listener(f"{factory.dsn}_not_there")
    with pytest.raises(ConnectError, match="does not exist") as caught:
        await listener.start()
    assert isinstance(caught.value.__cause__, asyncpg.InvalidCatalogNameError)
    assert not isinstance(caught.value, ConnectTimeoutError)


@pytest.mark.parametrize("query", ["", "prepared_statement_cache_size=0&ssl=prefer"])
async def test_urls_of_sqlalchemy_are_taken_as_they_are(dsn: str, query: str) -> None:
    """``postgresql+asyncpg://`` with SQLAlchemy's own arguments connects."""
    parts = urlsplit(dsn)
    address = f"{parts.hostname}:{parts.port}"
    url = with_host(dsn, address, scheme="postgresql+asyncpg", query=query)
    assert await works(Listener(url))


@pytest.mark.needs_server("driver")
async def test_arguments_of_asyncpg_connect_work(dsn: str, database: Database) -> None:
    """Keyword arguments go to asyncpg, and go before the DSN."""
    parts = urlsplit(dsn)
    listener = Listener(
        host=parts.hostname,
        port=parts.port,
        user=parts.username,
        password=parts.password,
        database=parts.path.lstrip("/"),
        server_settings={"application_name": "by keyword"},
    )
    async with listener:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'by keyword'"
        assert await database.connection.fetchval(query) == 1


@pytest.mark.needs_server("driver")
async def test_without_a_dsn_the_environment_says_where(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGHOST and the like are read at the start, as asyncpg and psql do."""
    parts = urlsplit(dsn)
    monkeypatch.setenv("PGHOST", parts.hostname or "")
    monkeypatch.setenv("PGPORT", str(parts.port))
    monkeypatch.setenv("PGUSER", parts.username or "")
    monkeypatch.setenv("PGPASSWORD", parts.password or "")
    monkeypatch.setenv("PGDATABASE", parts.path.lstrip("/"))
    listener = Listener()
    assert await works(listener)
    assert "PGPASSWORD" in os.environ


@pytest.mark.needs_server("network")
async def test_several_hosts_the_first_of_them_dead(
    dsn: str, dead_port: int, database: Database
) -> None:
    """With two hosts the one that serves is found, also when the first refuses."""
    parts = urlsplit(dsn)
    alive = f"{parts.hostname}:{parts.port}"
    assert await works(Listener(with_host(dsn, f"127.0.0.1:{dead_port}", alive)))
    assert await works(Listener(with_host(dsn, alive, f"127.0.0.1:{dead_port}")))


@pytest.mark.needs_server("network")
async def test_a_first_host_that_is_silent_takes_its_own_timeout_only(dsn: str) -> None:
    """A host that accepts and stays silent does not use up the time of the next one."""
    parts = urlsplit(dsn)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hosts = with_host(dsn, f"127.0.0.1:{port}", f"{parts.hostname}:{parts.port}")
        assert await works(Listener(hosts, connect_timeout=scaled(0.3)))


async def test_passwords_may_be_given_in_every_form(guarded: PostgresServer) -> None:
    """In the DSN, percent-encoded; as a keyword; from a plain function or an async one."""

    async def ask() -> str:
        await asyncio.sleep(0)
        return "se@cret/:1"

    dsn = guarded.dsn_for("postgres", user="guest")
    assert await works(Listener(guarded.dsn_for("postgres", user="guest", password="se@cret/:1")))
    assert await works(Listener(dsn, password="se@cret/:1"))
    assert await works(Listener(dsn, password=lambda: "se@cret/:1"))
    assert await works(Listener(dsn, password=ask))


async def test_a_wrong_password_is_refused_at_once(
    guarded: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """start() raises in one attempt; the password is in no message and no log."""
    listener = Listener(guarded.dsn_for("postgres", user="guest", password="wr0ng"))
    with pytest.raises(ConnectError, match="password") as caught:
        await listener.start()
    assert isinstance(caught.value.__cause__, asyncpg.InvalidPasswordError)
    said = [str(caught.value), repr(caught.value), repr(listener), caplog.text]
    assert not any("wr0ng" in text for text in said)


async def test_a_password_is_asked_for_at_every_connection(guarded: PostgresServer) -> None:
    """A password that was changed meanwhile is used by the next connection."""
    asked: list[str] = []

    def password() -> str:
        asked.append("asked")
        return "se@cret/:1"

    admin = await asyncpg.connect(guarded.dsn)
    async with Listener(
        guarded.dsn_for("postgres", user="guest"), password=password, heartbeat=None
    ) as listener:
        events = listener.events()
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guest'"
        )
        while str(type(await anext(events)).__name__) != "Reconnected":
            pass
        assert await listener.health(server=False)
    await admin.close()
    assert len(asked) == 2


async def test_a_password_callable_that_raises_is_told_by_its_name(
    guarded: PostgresServer,
) -> None:
    """What it raised is the cause; it is tried again until the start's timeout."""

    def password() -> str:
        raise LookupError

    dsn = guarded.dsn_for("postgres", user="guest")
    with pytest.raises(AsyncNotifyError, match="LookupError"):
        await Listener(dsn, password=password, start_timeout=scaled(0.3)).start()


@pytest.mark.parametrize("returned", [None, "postgresql://localhost", object()])
async def test_connect_has_to_return_a_connection(returned: object) -> None:
    """Anything else is a configuration error, in one attempt."""

    async def connect() -> Any:
        return returned

    with pytest.raises(ConfigurationError, match="connect="):
        await Listener(connect=connect).start()


@pytest.mark.needs_server("driver")
async def test_connect_must_not_return_a_pooled_connection(dsn: str) -> None:
    """A connection of a pool would be reset by the pool: it is refused, and says why."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        connection = await pool.acquire()

        async def connect() -> Any:
            return connection

        with pytest.raises(ConfigurationError, match="pool"):
            await Listener(connect=connect).start()
        await pool.release(connection)


async def test_a_dsn_is_never_shown_with_its_password() -> None:
    """repr shows user, host and database only."""
    secret = quote("se@cret", safe="")
    listener = Listener(f"postgresql://guest:{secret}@example.org:5433/db")
    assert repr(listener) == "<Listener guest@example.org:5433/db new>"


@pytest.mark.parametrize("password", [b"secret", 5, ["secret"]])
def test_a_password_of_another_type_is_refused_at_once(password: object) -> None:
    """It is a str or a callable; the error names the type, and not the password."""
    with pytest.raises(TypeError, match="password must be a str or a callable") as refusal:
        Listener("postgresql://127.0.0.1/x", password=password)
    assert "secret" not in str(refusal.value)


_NO_PORT: list[tuple[str, dict[str, Any]]] = [
    ("postgresql://postgres@127.0.0.1:99999/postgres", {}),
    ("postgresql://postgres@127.0.0.1:0/postgres", {}),
    ("postgresql://127.0.0.1:5432,127.0.0.1:65536/postgres", {}),
    ("postgresql:///postgres?host=127.0.0.1&port=70000", {}),
    ("postgresql://127.0.0.1/postgres", {"port": -1}),
    ("postgresql://127.0.0.1:5432/postgres", {"port": [5432, 65536]}),
    ("postgresql://127.0.0.1/postgres", {"port": "5432x"}),
]


@pytest.mark.parametrize(("dsn", "arguments"), _NO_PORT)
async def test_a_port_that_cannot_be_is_a_configuration_error(
    dsn: str, arguments: dict[str, Any]
) -> None:
    """Nobody has to wait for start_timeout to learn of it, on any event loop."""
    with pytest.raises(ConfigurationError, match="between 1 and 65535"):
        await Listener(dsn, **arguments).start()


async def test_a_port_of_the_environment_that_cannot_be_is_refused_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PGPORT counts where nothing else names a port."""
    monkeypatch.setenv("PGPORT", "99999")
    with pytest.raises(ConfigurationError, match="between 1 and 65535"):
        await Listener("postgresql://postgres@127.0.0.1/postgres").start()
