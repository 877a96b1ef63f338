"""Making a connection: with which arguments, to which host, for how long."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify._asyncpg._connecting import attempts
from asyncnotify._asyncpg._connecting.dial import Dialer, check_connect_arguments
from asyncnotify._asyncpg._connecting.lookups import Address, Lookups
from asyncnotify._asyncpg.connection import HookedConnection
from asyncnotify._asyncpg.failures import is_permanent
from asyncnotify._errors import ConfigurationError, ConnectError
from asyncnotify.testing.clock import START
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncnotify._asyncpg._connecting.racing import Race

ONE, TWO = "127.0.0.1", "127.0.0.2"
STARTING = asyncpg.CannotConnectNowError("the database system is starting up")
CLOSED = asyncpg.ConnectionDoesNotExistError("connection was closed")


class Driver:
    """Stands for asyncpg.connect: notes what it is asked, and does what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asyncpg, "connect", self.connect)
        for name in ("PGHOST", "PGPORT", "PGTARGETSESSIONATTRS"):
            monkeypatch.delenv(name, raising=False)
        self.calls: list[dict[str, Any]] = []
        self.made: list[FakeConnection] = []
        self.silent: set[str] = set()
        self.refusals: dict[str | None, BaseException] = {}

    async def connect(self, **arguments: object) -> FakeConnection:
        """Connect, hang or refuse."""
        self.calls.append(arguments)
        host = str(arguments.get("host"))
        if host in self.silent:
            await asyncio.get_running_loop().create_future()
        if (refusal := self.refusals.get(host)) is not None:
            raise refusal
        self.made.append(FakeConnection())
        return self.made[-1]

    @property
    def hosts(self) -> list[tuple[object, object]]:
        """Whom it was asked to connect to."""
        return [(call.get("host"), call.get("port")) for call in self.calls]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver without a network."""
    return Driver(monkeypatch)


def dialer(dsn: str | None = None, **arguments: object) -> Dialer:
    """Return one with a timeout of ten seconds."""
    return Dialer(dsn, None, arguments, timeout=10.0)


def clock() -> float:
    """Return the seconds since the test began."""
    return asyncio.get_running_loop().time() - START


# -- arguments ------------------------------------------------------------------------------------


async def test_what_was_given_reaches_the_driver_with_our_own_beside_it(driver: Driver) -> None:
    """As keyword arguments alone, so that the driver has nothing to read for itself."""
    await dialer(f"postgresql+asyncpg://{ONE}/app?ssl=require", user="joe").dial()
    (call,) = driver.calls
    tls = call.pop("ssl")
    assert (tls.check_hostname, tls.verify_mode) == (False, ssl.CERT_NONE)
    assert call.pop("loop") is not None
    assert call == {
        "host": ONE,
        "port": 5432,
        "user": "joe",
        "password": "",
        "database": "app",
        "direct_tls": False,
        "target_session_attrs": "any",
        "server_settings": {"application_name": "asyncnotify"},
        "connection_class": HookedConnection,
        "timeout": None,
    }


@pytest.mark.parametrize(
    ("dsn", "arguments", "name"),
    [
        (f"postgresql://{ONE}/app?application_name=mine", {}, "mine"),
        (f"postgresql://{ONE}/app", {"server_settings": {"application_name": "mine"}}, "mine"),
    ],
)
async def test_an_application_name_of_ones_own_is_kept(
    driver: Driver, dsn: str, arguments: dict[str, object], name: str | None
) -> None:
    """Whether it stands in the DSN or in the settings, which are not changed."""
    await dialer(dsn, **arguments).dial()
    assert driver.calls[0]["server_settings"].get("application_name") == name


async def test_without_the_hook_the_drivers_own_class_serves(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where asyncpg is not as expected, notifications come by the public callback."""
    monkeypatch.setattr(attempts, "hook_is_intact", lambda: False)
    await dialer(host=ONE).dial()
    assert driver.calls[0]["connection_class"] is asyncpg.Connection


@pytest.mark.parametrize(
    ("dsn", "arguments", "wanted"),
    [
        (f"postgresql://{ONE},{TWO}/app", {}, "primary"),
        (f"postgresql://{ONE},{TWO}/app?target_session_attrs=any", {}, "any"),
        (None, {"host": [ONE, TWO], "target_session_attrs": "any"}, "any"),
        (f"postgresql://{ONE}/app", {}, "any"),
    ],
)
async def test_among_several_hosts_the_primary_is_wanted(
    driver: Driver, dsn: str | None, arguments: dict[str, object], wanted: str | None
) -> None:
    """LISTEN is refused on a standby; who says something else gets that."""
    made = dialer(dsn, **arguments)
    await made.dial()
    assert made.wanted == wanted
    assert driver.calls[0]["target_session_attrs"] == "any"  # it is we who look


@pytest.mark.parametrize(
    ("dsn", "connect", "arguments", "text"),
    [
        (None, None, {"hostt": "db"}, "'hostt'"),
        (None, None, {"timeout": 5}, "connect_timeout="),
        (None, None, {"connection_class": asyncpg.Connection}, "'connection_class'"),
        ("postgresql://db", FakeConnection, {}, "dsn would go unused"),
        (None, FakeConnection, {"user": "joe"}, "user would go unused"),
        (b"postgresql://db", None, {}, "dsn must be a str"),
        (None, "postgresql://db", {}, "connect must be callable"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_at_once(
    dsn: object, connect: object, arguments: dict[str, object], text: str
) -> None:
    """A TypeError names them, as for any function."""
    with pytest.raises(TypeError, match=text):
        check_connect_arguments(dsn, connect, arguments)


async def test_r54_tls_without_further_words_verifies_everything(driver: Driver) -> None:
    """``ssl=True`` stands for the authorities of the system, and the name of the host."""
    await dialer(host=ONE, ssl=True).dial()
    tls = driver.calls[0]["ssl"]
    assert (tls.check_hostname, tls.verify_mode) == (True, ssl.CERT_REQUIRED)


# -- hosts ----------------------------------------------------------------------------------------


async def test_each_host_has_a_deadline_of_its_own(driver: Driver) -> None:
    """A silent one does not use up the time of the next."""
    driver.silent = {ONE}
    assert await dialer(f"postgresql://{ONE}:1,{TWO}:2/app").dial() is driver.made[0]
    assert driver.hosts == [(ONE, 1), (TWO, 2)]
    assert clock() == pytest.approx(10, abs=0.5)


async def test_a_host_that_refuses_is_followed_by_the_next(driver: Driver) -> None:
    """Whatever it raises; if no other one serves, the error tells of each of them."""
    starting, no_route = asyncpg.CannotConnectNowError("starting"), OSError("no route")
    driver.refusals = {ONE: starting, TWO: no_route}
    with pytest.raises(ConnectError) as caught:
        await dialer(host=[ONE, TWO], port=[1, 2]).dial()
    assert driver.hosts == [(ONE, 1), (TWO, 2)]
    assert f"{ONE}:1: CannotConnectNowError: starting" in str(caught.value)
    assert f"{TWO}:2: OSError: no route" in str(caught.value)
    assert caught.value.__cause__ is no_route


async def test_what_no_host_can_help_is_raised_by_the_first(driver: Driver) -> None:
    """A wrong password is not tried on every host."""
    driver.refusals = {ONE: asyncpg.InvalidPasswordError("wrong")}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await dialer(host=[ONE, TWO]).dial()
    assert driver.hosts == [(ONE, 5432)]


async def test_a_dial_that_takes_too_long_is_given_up(driver: Driver) -> None:
    """TimeoutError says how long was waited."""
    driver.silent = {ONE}
    with pytest.raises(TimeoutError, match="no connection within 10 s"):
        await dialer(host=ONE).dial()
    assert clock() == pytest.approx(10, abs=0.5)


async def test_where_a_standby_is_preferred_any_other_one_will_do(driver: Driver) -> None:
    """All hosts are asked for a standby before any is taken, as libpq does it."""
    made = dialer(host=[ONE, TWO], target_session_attrs="prefer-standby")
    await made.dial()
    assert [call["host"] for call in driver.calls] == [ONE, TWO, ONE]
    assert [connection.terminated for connection in driver.made] == [True, True, False]
    assert made.wanted == "any"


@pytest.mark.parametrize(
    ("addresses", "wanted"),
    [
        (["192.0.2.1", "2001:db8::1"], "primary"),
        (["192.0.2.1"], "any"),
        (["127.0.0.1", "::1"], "any"),
    ],
)
async def test_of_several_addresses_of_one_name_the_primary_is_wanted(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, addresses: list[str], wanted: str
) -> None:
    """One of them may be that of a standby; the loopback's are all of one server."""

    async def resolve(*_: object, **__: object) -> list[Address]:
        families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
        return [Address(f, (one, 5432)) for f, one in zip(families, addresses, strict=True)]

    monkeypatch.setattr(Lookups, "resolve", resolve)
    made = dialer("postgresql://db.example/app")
    await made.dial()
    assert made.wanted == wanted
    explicit = dialer("postgresql://db.example/app?target_session_attrs=any")
    await explicit.dial()
    assert explicit.wanted == "any"


async def test_r52_a_server_that_refuses_is_followed_by_the_other_addresses_of_its_name(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which nothing is known yet, as the first one has answered before they were tried."""
    addresses = [Address(socket.AF_INET, (f"192.0.2.{number}", 5432)) for number in (1, 2)]
    tried: list[Address | None] = []

    async def resolve(*_: object, **__: object) -> list[Address]:
        return addresses

    async def connect_at_once(_sock: socket.socket, _place: object) -> None:
        pass

    async def connect(_arguments: object, _loop: object, race: Race) -> FakeConnection:
        (await race.connect()).close()
        tried.append(race.winner)
        if len(tried) == 1:
            raise STARTING
        return FakeConnection()

    monkeypatch.setattr(Lookups, "resolve", resolve)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect_at_once)
    monkeypatch.setattr(attempts, "connect_asyncpg", connect)
    await dialer("postgresql://db.example/app").dial()
    assert tried == addresses


async def test_a_unix_socket_is_not_looked_up_and_has_no_tls(driver: Driver) -> None:
    """Whatever sslmode says: it does not leave the machine."""
    await dialer("postgresql:///app?host=/run/nowhere&sslmode=prefer").dial()
    (call,) = driver.calls
    assert (call["host"], call["ssl"]) == ("/run/nowhere", False)


@pytest.mark.parametrize("start_timeout", [2.0, None])
async def test_r52_the_first_pass_reaches_every_host_within_the_start(
    driver: Driver, start_timeout: float | None
) -> None:
    """Later each has its whole time."""
    driver.silent = {ONE, TWO}
    arguments = {"host": [ONE, TWO]}
    made = Dialer(None, None, arguments, timeout=10.0, start_timeout=start_timeout)
    for share in (2.0 * 0.9, 20.0) if start_timeout else (20.0, 20.0):
        began = clock()
        with pytest.raises(ConnectError):
            await made.dial()
        assert clock() - began == pytest.approx(share, abs=0.3)


async def test_every_pass_may_reach_every_host_in_a_given_time(driver: Driver) -> None:
    """Where that is asked for; a later one begins with the host that answered."""
    driver.silent = {ONE}
    made = Dialer(None, None, {"host": [ONE, TWO]}, timeout=10.0, pass_timeout=2.0)
    for waited, hosts in ((0.9, [ONE, TWO]), (0.0, [TWO])):
        driver.calls.clear()
        began = clock()
        await made.dial()
        assert clock() - began == pytest.approx(waited, abs=0.1)
        assert [host for host, _ in driver.hosts] == hosts
    driver.silent = {ONE, TWO}
    for _ in range(2):
        began = clock()
        with pytest.raises(ConnectError):
            await made.dial()
        assert clock() - began == pytest.approx(1.8, abs=0.1)


async def test_load_is_balanced_where_it_is_asked_for(driver: Driver) -> None:
    """The hosts come in any order, each of them."""
    hosts = ",".join(f"127.0.0.{number}" for number in range(1, 20))
    made = dialer(f"postgresql://{hosts}/app?load_balance_hosts=random")
    firsts = set()
    for _ in range(20):
        await made.dial()
        firsts.add(driver.calls[-1]["host"])
    assert len(firsts) > 1


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("s3cret"), OSError("vault"), KeyError("TOKEN")])
async def test_a_password_callable_that_raises_is_tried_again(
    driver: Driver, error: Exception
) -> None:
    """It is no mistake of the arguments; its error is the cause, and its text is not repeated."""

    def password() -> str:
        raise error

    with pytest.raises((ConnectError, OSError)) as caught:
        await dialer(host=ONE, password=password).dial()
    assert not is_permanent(caught.value)
    assert error in (caught.value, caught.value.__cause__)
    assert driver.calls == []
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("kind", [ValueError, asyncpg.InterfaceError])
async def test_r54_what_the_driver_does_not_take_is_tried_with_no_other_host(
    driver: Driver, kind: type[Exception]
) -> None:
    """It has looked at its arguments and done nothing else: no other attempt would help."""
    driver.refusals = {ONE: kind("of the driver")}
    with pytest.raises(kind, match="of the driver") as caught:
        await dialer(host=[ONE, TWO]).dial()
    assert len(driver.calls) == 1
    assert is_permanent(caught.value)


async def test_r54_a_peer_that_is_no_server_is_named_as_such(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as the connection that had to be ended for that; another server may be there soon."""

    async def connect(**arguments: Any) -> None:
        arguments["loop"]._refuse(OSError("the peer is no PostgreSQL"))  # noqa: SLF001 - as the guard
        raise CLOSED

    monkeypatch.setattr(asyncpg, "connect", connect)
    with pytest.raises(ConnectError, match="the peer is no PostgreSQL") as caught:
        await dialer(host=ONE).dial()
    assert not is_permanent(caught.value)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("password", ("s3cret",)), ("password", "s3cret\0"), ("ssl", ("s3cret",))],
)
async def test_r54_a_callable_that_returns_something_else_ends_the_start(
    driver: Driver, name: str, answer: object
) -> None:
    """The error says which, and not the value, which may be a secret in some form."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        await Dialer(None, None, {"host": ONE, name: lambda: answer}, timeout=10.0).dial()
    assert is_permanent(caught.value)
    assert "s3cret" not in str(caught.value)
    assert driver.calls == []


@pytest.mark.parametrize("name", ["password", "ssl"])
async def test_r53_a_callable_that_does_not_return_is_given_up(driver: Driver, name: str) -> None:
    """The error says which; it is asked again for the next attempt."""

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError, match=f"the {name} callable has not returned within 10 s"):
        await Dialer(None, None, {"host": ONE, name: never}, timeout=10.0).dial()
    assert clock() == pytest.approx(10, abs=0.5)
    assert driver.calls == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_password_callable_is_asked_for_every_connection(
    driver: Driver, *, is_async: bool
) -> None:
    """Plain or async; the DSN's own password plays no part."""
    tokens = iter(["one", "two"])

    async def later() -> str:
        return next(tokens)

    made = dialer(host=ONE, password=later if is_async else lambda: next(tokens))
    for _ in range(2):
        await made.dial()
    assert [call["password"] for call in driver.calls] == ["one", "two"]


# -- connect= -------------------------------------------------------------------------------------


def calling(connect: Callable[[], Any]) -> Dialer:
    """Return a dialer that calls this."""
    return Dialer(None, connect, {}, timeout=10.0)


async def test_connect_makes_the_connections() -> None:
    """Each time anew; the driver is not asked."""
    made = [FakeConnection(), FakeConnection()]
    left = iter(made)

    async def connect() -> FakeConnection:
        return next(left)

    ours = calling(connect)
    assert [await ours.dial(), await ours.dial()] == made
    assert ours.target == "connect="


async def test_a_connection_without_tls_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """At the first connection that leaves the machine, whatever becomes of later ones."""

    async def connect() -> FakeConnection:
        connection = FakeConnection()
        sock = SimpleNamespace(family=socket.AF_INET, getpeername=lambda: ("192.0.2.7", 5432))
        transport = SimpleNamespace(get_extra_info={"socket": sock}.get)
        connection._transport = transport  # noqa: SLF001 - where the driver keeps it
        return connection

    ours = calling(connect)
    for _ in range(3):
        await ours.dial()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is not encrypted" in record.getMessage()


@pytest.mark.parametrize("result", [None, object(), "postgresql://db"])
async def test_what_is_no_connection_is_refused(result: object) -> None:
    """The error says what it was, and why a pool's will not do."""

    async def connect() -> object:
        return result

    with pytest.raises(ConfigurationError, match=type(result).__name__):
        await calling(connect).dial()


async def test_the_same_connection_twice_is_refused() -> None:
    """It was lost: what it is asked now it cannot do."""
    connection = FakeConnection()

    async def connect() -> FakeConnection:
        return connection

    ours = calling(connect)
    await ours.dial()
    with pytest.raises(ConfigurationError, match="same connection twice"):
        await ours.dial()


@pytest.mark.parametrize("fault", ["encoding", "transaction"])
async def test_a_connection_that_would_never_deliver_is_refused_and_dropped(fault: str) -> None:
    """In another encoding channels get other names; in a transaction LISTEN has no effect."""
    connection = FakeConnection(encoding="LATIN1" if fault == "encoding" else "UTF8")
    connection.in_transaction = fault == "transaction"

    async def connect() -> FakeConnection:
        return connection

    with pytest.raises(ConfigurationError, match=fault):
        await calling(connect).dial()
    assert connection.terminated


async def test_r11_connect_that_raises_cancelled_error_is_an_error_like_another() -> None:
    """It has awaited what somebody else cancelled, such as a shared refresh of a token."""

    async def connect() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(ConnectError, match="cancelled itself"):
        await calling(connect).dial()


# -- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.01, 1.0])
async def test_r32_a_connection_that_comes_too_late_is_dropped(seconds: float) -> None:
    """The dial was cancelled, or timed out; what it makes all the same is not left behind."""
    connection = FakeConnection()

    async def connect() -> FakeConnection:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
        return connection

    dialling = asyncio.ensure_future(calling(connect).dial())
    await asyncio.sleep(1)
    before = clock()
    dialling.cancel()
    await asyncio.wait({dialling})
    assert dialling.cancelled()
    assert clock() - before < 0.5
    await asyncio.sleep(2)
    assert connection.terminated
