from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from asyncnotify._asyncpg.attempts import Attempts, within
from asyncnotify._asyncpg.failures import Step, is_permanent, step_of
from asyncnotify._asyncpg.lookups import Address
from asyncnotify._asyncpg.settings import Given
from asyncnotify._errors import ConfigurationError, ConnectError
from tests.unit.fake_connection import FakeConnection

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from asyncnotify._asyncpg.racing import Race

TIMEOUT = 10.0
REFUSED = ConnectionRefusedError("refused")
UNKNOWN = socket.gaierror("unknown name")
WRONG_PASSWORD = asyncpg.InvalidPasswordError("wrong password")


class Driver:
    """Stands for the driver and the name service: records what they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asyncnotify._asyncpg.attempts.connect_asyncpg", self._connect)
        self.outcomes: dict[str, list[Exception]] = {}
        self.calls: list[dict[str, Any]] = []
        self.unknown: set[str] = set()

    async def _connect(self, arguments: dict[str, Any], race: Race) -> FakeConnection:
        self.calls.append(arguments)
        if errors := self.outcomes.get(arguments["host"]):
            raise errors.pop(0) if len(errors) > 1 else errors[0]
        return FakeConnection()

    async def resolve(self, host: str, port: int, *, timeout: float) -> list[Address]:
        """Return one address of a name that is known."""
        if host in self.unknown:
            raise UNKNOWN
        return [Address(socket.AF_INET, ("192.0.2.1", port))]

    def attempts(self, dsn: str) -> Attempts:
        """Return the attempts for a DSN, where the environment says nothing."""
        settings = Given(dsn, {}).complete({})
        return Attempts(settings, False, cast("Any", self), timeout=TIMEOUT)  # noqa: FBT003 - as ssl=

    @property
    def tried(self) -> list[tuple[str, str]]:
        """Host and wanted kind of session of each call."""
        return [(call["host"], call["target_session_attrs"]) for call in self.calls]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver that connects to every host."""
    return Driver(monkeypatch)


async def test_the_first_host_that_answers_ends_the_attempts(driver: Driver) -> None:
    """In the order in which they are given."""
    driver.outcomes = {"a": [REFUSED]}
    await driver.attempts("postgresql://joe@a,b,c/app").run()
    assert [host for host, _ in driver.tried] == ["a", "b"]


async def test_a_name_that_cannot_be_resolved_is_followed_by_the_next_host(
    driver: Driver,
) -> None:
    """The driver is not asked about it."""
    driver.unknown = {"a"}
    await driver.attempts("postgresql://joe@a,b/app").run()
    assert [host for host, _ in driver.tried] == ["b"]


async def test_what_no_other_host_can_help_is_raised_at_once(driver: Driver) -> None:
    """A wrong password is wrong on every server of a cluster."""
    driver.outcomes = {"a": [WRONG_PASSWORD]}
    with pytest.raises(asyncpg.InvalidPasswordError):
        await driver.attempts("postgresql://joe@a,b/app").run()
    assert [host for host, _ in driver.tried] == ["a"]


async def test_a_single_failure_is_raised_as_it_is(driver: Driver) -> None:
    """With nothing wrapped around it."""
    driver.outcomes = {"a": [REFUSED]}
    with pytest.raises(ConnectionRefusedError) as raised:
        await driver.attempts("postgresql://joe@a/app").run()
    assert raised.value is REFUSED


async def test_of_several_failures_all_are_told(driver: Driver) -> None:
    """By one error, whose cause is the one that a repair would help with."""
    telling = asyncpg.ObjectNotInPrerequisiteStateError("database is not accepting connections")
    driver.outcomes = {"a": [REFUSED], "b": [telling], "c": [REFUSED]}
    with pytest.raises(ConnectError, match=r"a:5432: .*b:5432.*: .*c:5432") as raised:
        await driver.attempts("postgresql://joe@a,b,c/app").run()
    assert raised.value.__cause__ is telling
    assert step_of(raised.value) is Step.NETWORK
    assert not is_permanent(raised.value)


async def test_prefer_standby_takes_any_server_in_a_second_round(driver: Driver) -> None:
    """After no host of the first round was a standby."""
    driver.outcomes = {"a": [REFUSED, REFUSED, REFUSED], "b": [REFUSED, REFUSED]}
    dsn = "postgresql://joe@a,b/app?target_session_attrs=prefer-standby"
    with pytest.raises(ConnectError):
        await driver.attempts(dsn).run()
    assert driver.tried == [("a", "standby"), ("b", "standby"), ("a", "any"), ("b", "any")]


async def test_nothing_is_left_for_the_driver_to_look_for(driver: Driver) -> None:
    """User, database, port and password are given, even where they are empty."""
    await driver.attempts("postgresql://joe@a:5433/app").run()
    (call,) = driver.calls
    assert (call["user"], call["database"], call["port"]) == ("joe", "app", 5433)
    assert call["password"] == ""


async def test_a_connection_that_would_never_deliver_is_no_connection(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked as what ``connect=`` returns is."""

    async def connect(_arguments: object, _race: object) -> FakeConnection:
        return FakeConnection(encoding="LATIN1")

    monkeypatch.setattr("asyncnotify._asyncpg.attempts.connect_asyncpg", connect)
    with pytest.raises(ConfigurationError, match="UTF8"):
        await driver.attempts("postgresql://joe@a/app").run()


# -- deadlines ------------------------------------------------------------------------------------


def now() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


def bounded(connecting: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """Let this take ten seconds at most."""
    deadline = now() + TIMEOUT
    return within(connecting, lambda: deadline, TIMEOUT)


async def test_a_dial_in_time_returns_its_connection() -> None:
    """And raises what it raises."""

    async def fail() -> None:
        await asyncio.sleep(1)
        raise REFUSED

    assert await bounded(asyncio.sleep(9, "connection")) == "connection"
    with pytest.raises(ConnectionRefusedError):
        await bounded(fail())


async def test_r32_a_dial_that_takes_too_long_is_cancelled() -> None:
    """TimeoutError; a connection that comes all the same is dropped."""
    connection = FakeConnection()

    async def stubborn() -> FakeConnection:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return connection
        return connection

    began = now()
    with pytest.raises(TimeoutError, match="no connection within 10 s"):
        await bounded(stubborn())
    assert now() - began == pytest.approx(TIMEOUT, abs=0.2)
    assert connection.terminated


async def test_r53_a_dial_that_is_cancelled_leaves_no_connection() -> None:
    """One that comes all the same is dropped."""
    connection = FakeConnection()

    async def stubborn() -> FakeConnection:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return connection
        return connection

    dialling = asyncio.create_task(bounded(stubborn()))
    await asyncio.sleep(1)
    dialling.cancel()
    await asyncio.wait({dialling})
    assert dialling.cancelled()
    assert connection.terminated


async def test_the_deadline_may_move_while_it_dials() -> None:
    """An address that answers late has all of its time from then on."""
    deadlines = [now() + 5]
    task = asyncio.create_task(
        within(asyncio.sleep(8, "connection"), lambda: deadlines[-1], TIMEOUT)
    )
    await asyncio.sleep(4)
    deadlines.append(now() + TIMEOUT)
    assert await task == "connection"


async def test_a_call_that_cancels_itself_has_failed() -> None:
    """The caller was not cancelled: to it that is an error like another."""

    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ConnectError, match="cancelled itself"):
        await bounded(cancel_itself())
