"""A session listens, proves that it does, and says what the server refused."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify._asyncpg.connection import as_hooked
from asyncnotify._asyncpg.listen_check import ListenCheck
from asyncnotify._asyncpg.session import ListeningSession
from asyncnotify._channels.checksum import Checksum
from asyncnotify._errors import ChannelNameError, ConfigurationError, ConnectionLostError
from asyncnotify._keepalive import Keepalive
from tests.unit.fake_connection import FakeConnection
from tests.unit.session_harness import SessionHarness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


TRUNCATED = asyncpg.UndefinedFileError("could not access status of transaction 7")
CANCELLED = asyncpg.QueryCanceledError("canceling statement due to user request")


@pytest_asyncio.fixture
async def harness() -> SessionHarness:
    """A fresh session."""
    return SessionHarness()


# -- statements -----------------------------------------------------------------------------------


async def test_r09_many_channels_are_one_statement_in_portions(harness: SessionHarness) -> None:
    """10,000 at a time, quoted, in one round trip each."""
    assert harness.session.batch_size == 10_000
    channels = ['channel "1"', 'channel "2"']
    await harness.session.listen(channels)
    await harness.session.unlisten(channels)
    assert harness.connection.statements == [
        'LISTEN "channel ""1""";LISTEN "channel ""2"""',
        'UNLISTEN "channel ""1""";UNLISTEN "channel ""2"""',
    ]


async def test_a_name_that_the_server_refuses_does_not_fail_the_others(
    harness: SessionHarness,
) -> None:
    """It is found by halves, and returned with the error; the others are listened on."""
    error = asyncpg.UntranslatableCharacterError("no such character")
    harness.connection.errors = [error, error, error]  # of a,b,c,d · of a,b · of a
    (refusal,) = (refused := await harness.session.listen(["a", "b", "c", "d"])).values()
    assert refused.keys() == {"a"}
    assert isinstance(refusal, ChannelNameError)
    assert refusal.__cause__ is error
    assert harness.connection.statements == [
        'LISTEN "a";LISTEN "b";LISTEN "c";LISTEN "d"',
        'LISTEN "a";LISTEN "b"',
        'LISTEN "a"',
        'LISTEN "b"',
        'LISTEN "c";LISTEN "d"',
    ]


@pytest.mark.parametrize(
    "error", [asyncpg.FeatureNotSupportedError("LISTEN"), asyncpg.PostgresSyntaxError("at LISTEN")]
)
async def test_r54_a_server_that_does_not_know_listen_refuses_every_channel(
    harness: SessionHarness, error: Exception
) -> None:
    """With a ConfigurationError: no other connection would change that. The session goes on."""
    harness.connection.errors = [error]
    refused = await harness.session.listen(["a", "b"])
    assert refused.keys() == {"a", "b"}
    assert all(isinstance(refusal, ConfigurationError) for refusal in refused.values())
    assert "does not support LISTEN" in str(refused["a"])
    assert not harness.session.lost


async def test_a_name_that_is_too_long_for_the_database_is_refused(harness: SessionHarness) -> None:
    """62 bytes in UTF-8, 93 in EUC_JP: LISTEN would cut it, and nothing would ever arrive."""
    name, short = "\u00e9" * 31, "\u00e9" * 21
    harness.session._server_encoding = "EUC_JP"  # noqa: SLF001 - the fake has no encodings
    refused = await harness.session.listen([name, short])
    assert refused.keys() == {name}
    assert "93 bytes in EUC_JP" in str(refused[name])
    assert harness.connection.statements == [f'LISTEN "{short}"']


async def test_a_truncated_status_is_repaired(
    harness: SessionHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """LISTEN meets the server's bug: the queue is emptied and LISTEN is given again."""
    harness.connection.errors = [TRUNCATED]
    harness.connection.answer = [[0.0]]
    assert await harness.session.listen(["a"]) == {}
    listen, usage, again = harness.connection.statements
    assert (listen, again) == ('LISTEN "a"', 'LISTEN "a"')
    assert "pg_notification_queue_usage" in usage
    assert "a bug of PostgreSQL" in caplog.text


HOLDER = {"pid": 9, "application_name": "psql\x1b[2J", "state": "idle", "seconds": 60.0}


@pytest.mark.parametrize(
    ("holders", "told"),
    [
        ([HOLDER], "one of these may be such a session: backend 9 ('psql"),
        ([{**HOLDER, "application_name": None}], "backend 9 ('', idle, for 60 s)"),
        ([], "emptying the queue did not help"),
        (asyncpg.InsufficientPrivilegeError("denied"), "emptying the queue did not help"),
    ],
)
async def test_a_truncated_status_that_cannot_be_repaired_is_raised(
    harness: SessionHarness, caplog: pytest.LogCaptureFixture, holders: object, told: str
) -> None:
    """With a warning of who may hold the queue, as far as the role may see it, escaped."""
    harness.connection.answers = [TRUNCATED, [[0.0]], TRUNCATED, holders]
    with pytest.raises(asyncpg.UndefinedFileError):
        await harness.session.listen(["a"])
    assert told in caplog.text
    assert "\x1b" not in caplog.text
    assert r"\\x1b" not in caplog.text  # escaped once
    assert not harness.session.lost


async def test_who_holds_the_queue_is_told_fit_for_a_terminal(harness: SessionHarness) -> None:
    """A program chooses its name, which may be missing: control characters are escaped."""
    harness.connection.answer = [HOLDER, {**HOLDER, "application_name": None}]
    holders = await harness.session.queue_holders(timeout=1.0)
    assert [holder["application_name"] for holder in holders] == ["psql\\x1b[2J", None]


@pytest.mark.parametrize("when", ["LISTEN", "who holds the queue"])
async def test_a_connection_that_dies_over_the_repair_is_lost(
    harness: SessionHarness, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    """Its end is raised, not the server's bug, and nothing is said of the queue."""
    gone = asyncpg.ConnectionDoesNotExistError("gone")
    again = [gone] if when == "LISTEN" else [TRUNCATED, gone]
    harness.connection.answers = [TRUNCATED, [[0.0]], *again]
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await harness.session.listen(["a"])
    assert "queue" not in caplog.text


# -- statements that are cancelled ----------------------------------------------------------------

COMMANDS: dict[str, Callable[[ListeningSession], Awaitable[object]]] = {
    "LISTEN": lambda session: session.listen(["a"]),
    "UNLISTEN": lambda session: session.unlisten(["a"]),
    "heartbeat": lambda session: session.is_listening(Checksum.of(()), timeout=1.0),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_cancelled_statement_is_given_again(harness: SessionHarness, command: str) -> None:
    """Twice 57014 is no loss: the third time it succeeds, on the same session."""
    harness.connection.errors = [CANCELLED, CANCELLED]
    await COMMANDS[command](harness.session)
    assert len(harness.connection.statements) == 3
    assert not harness.session.lost


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_statement_that_is_cancelled_three_times_fails(
    harness: SessionHarness, command: str
) -> None:
    """A statement that was cancelled often enough is not repeated: the error says so."""
    harness.connection.errors = [CANCELLED] * 3
    with pytest.raises(asyncpg.QueryCanceledError):
        await COMMANDS[command](harness.session)
    assert len(harness.connection.statements) == 3


async def test_another_error_is_not_insisted_upon(harness: SessionHarness) -> None:
    """The statement is given once."""
    harness.connection.errors = [asyncpg.InternalClientError("unknown protocol state 3")]
    with pytest.raises(asyncpg.InternalClientError):
        await harness.session.listen(["a"])
    assert len(harness.connection.statements) == 1


@pytest.mark.parametrize(("answer", "agrees"), [("SELECT 1", True), ("SELECT 0", False)])
async def test_r05_a_heartbeat_is_one_statement_that_writes_nothing(
    harness: SessionHarness, answer: str, *, agrees: bool
) -> None:
    """Its answer says whether the channels are the right ones."""
    harness.connection.answer = answer
    channels = Checksum.of(("a", "b", "c"))
    assert await harness.session.is_listening(channels, timeout=1.0) is agrees
    (statement,) = harness.connection.statements
    assert statement.startswith("/*NO LOAD BALANCE*/ SELECT 1 WHERE")
    assert statement.endswith(channels.sql)


@pytest.mark.parametrize(("answer", "agrees"), [("SELECT 1", True), ("SELECT 0", False)])
async def test_r06_a_server_without_checksums_is_asked_for_the_number_of_channels(
    harness: SessionHarness, answer: str, *, agrees: bool
) -> None:
    """In FIPS mode there is no md5: then their number has to do, from the first refusal on."""
    channels = Checksum.of(("a", "b", "c"))
    harness.connection.errors = [asyncpg.FeatureNotSupportedError("md5 is off")]
    harness.connection.answer = answer
    for _ in range(2):
        assert await harness.session.is_listening(channels, timeout=1.0) is agrees
    with_sum, *without = harness.connection.statements
    assert "md5" in with_sum
    assert len(without) == 2
    assert all("md5" not in s and s.endswith(" 3") for s in without)


@pytest.mark.parametrize("fits", [True, False])
async def test_r13_a_heartbeat_asks_in_the_same_statement_what_the_server_is(
    harness: SessionHarness, *, fits: bool
) -> None:
    """Only if something is wrong it is asked what; a server that is not wanted is a loss."""
    session = harness.session_that_wants("read-write")
    assert await session.is_listening(Checksum.of(()), timeout=1.0)
    (statement,) = harness.connection.statements
    assert statement.endswith("'transaction_read_only') OPERATOR(pg_catalog.=) 'off'")
    harness.connection.answers = ["SELECT 0", "SELECT 1" if fits else "SELECT 0"]
    if fits:
        assert not await session.is_listening(Checksum.of(()), timeout=1.0)
    else:
        with pytest.raises(ConnectionLostError, match="the server is read-only"):
            await session.is_listening(Checksum.of(()), timeout=1.0)


async def test_another_error_of_a_heartbeat_says_nothing_of_checksums(
    harness: SessionHarness,
) -> None:
    """It is raised as it is, and the next heartbeat asks for the checksum again."""
    harness.connection.errors = [asyncpg.AdminShutdownError("going away")]
    with pytest.raises(asyncpg.AdminShutdownError):
        await harness.session.is_listening(Checksum.of(()), timeout=1.0)
    assert await harness.session.is_listening(Checksum.of(()), timeout=1.0)
    assert "md5" in harness.connection.statements[-1]


async def test_r06_what_others_listen_on_over_the_connection_is_allowed_for(
    harness: SessionHarness,
) -> None:
    """Asked which channels are missing, it learns of theirs: the next heartbeat expects them."""
    harness.connection.answer = [{"channel": name} for name in ("a", "theirs")]
    assert await harness.session.missing({"a"}) == frozenset()
    harness.connection.answer = "SELECT 1"
    assert await harness.session.is_listening(Checksum.of(("a",)), timeout=1.0)
    assert harness.connection.statements[-1].endswith(Checksum.of(("a", "theirs")).sql)


async def test_r38_settings_that_the_server_refuses_stay_as_they_are(
    harness: SessionHarness,
) -> None:
    """The backend's pid is asked for once more, without them; other errors are a loss."""
    harness.connection.errors = [asyncpg.InsufficientPrivilegeError("denied")] * 2
    assert await harness.session.introduce(Keepalive())
    first, second, third = harness.connection.statements
    assert "tcp_user_timeout" in first
    assert "default_transaction_deferrable" in first
    assert "tcp_user_timeout" not in second
    assert "default_transaction_deferrable" in second
    assert "set_config" not in third
    harness.connection.errors = [asyncpg.AdminShutdownError("going away")]
    with pytest.raises(asyncpg.AdminShutdownError):
        await harness.session.introduce(Keepalive())


async def test_r38_options_that_the_platform_refuses_stay_as_they_are(
    harness: SessionHarness,
) -> None:
    """Each is tried, whatever became of the one before; it is no error."""
    tried: list[int] = []

    def refuse(_level: int, option: int, _value: int) -> None:
        tried.append(option)
        raise OSError

    sock = SimpleNamespace(family=socket.AF_INET, setsockopt=refuse)
    harness.connection._transport = SimpleNamespace(get_extra_info={"socket": sock}.get)  # noqa: SLF001 - as asyncpg
    assert await harness.session.introduce(Keepalive())
    assert len(tried) > 1
    assert socket.SO_KEEPALIVE in tried


@pytest.mark.parametrize(("answer", "ours"), [("SELECT 1", True), ("SELECT 0", False)])
async def test_r39_another_backend_than_was_told_at_connecting_is_a_poolers(
    harness: SessionHarness, answer: str, *, ours: bool
) -> None:
    """The same round trip says so; without keepalive nothing of it is set."""
    harness.connection.answer = answer
    assert await harness.session.introduce(None) is ours
    (statement,) = harness.connection.statements
    assert "tcp" not in statement
    assert statement.endswith(" 7")


async def test_r59_a_backend_that_is_older_than_the_connection_is_not_ours(
    harness: SessionHarness,
) -> None:
    """It is asked twice: on a busy machine one question may be late."""
    began = harness.loop.time()
    harness.connection.answers = ["SELECT 0", "SELECT 1"]
    assert await harness.session.introduce(None, began=began)
    harness.connection.answers = ["SELECT 0", "SELECT 0"]
    assert not await harness.session.introduce(None, began=began)
    assert all("backend_start" in statement for statement in harness.connection.statements)
    assert len(harness.connection.statements) == 4


async def test_r59_a_server_that_does_not_tell_how_old_a_backend_is_has_the_benefit_of_the_doubt(
    harness: SessionHarness,
) -> None:
    """What it refuses is not asked again; its pid has to do."""
    harness.connection.errors = [asyncpg.UndefinedFunctionError("no such function")] * 2
    assert await harness.session.introduce(None, began=harness.loop.time())
    assert harness.connection.statements[-1].endswith(" 7")


# -- what arrives ---------------------------------------------------------------------------------


def bring(harness: SessionHarness, channel: str = "a", payload: str = "1") -> None:
    """Let the driver hand over a notification."""
    harness.connection._process_notification(9, channel, payload)  # noqa: SLF001 - as asyncpg


async def test_notifications_come_straight_from_the_driver(harness: SessionHarness) -> None:
    """As it hands them over, until the session is left behind."""
    bring(harness)
    harness.session.terminate()
    bring(harness)
    assert harness.arrived == [(9, "a", "1")]


async def test_the_end_of_the_connection_is_told_once_it_is_not_our_doing(
    harness: SessionHarness,
) -> None:
    """The driver's callback counts, unless we have terminated the connection ourselves."""
    (callback,) = harness.connection.termination_listeners
    callback(harness.connection)
    assert harness.losses == 1
    harness.session.terminate()
    callback(harness.connection)
    assert harness.losses == 1


@pytest.mark.parametrize(
    ("sqlstate", "notice"), [("57P01", "going away"), ("57P02", "going away"), ("01000", None)]
)
async def test_the_last_words_of_the_server_are_kept(
    harness: SessionHarness, sqlstate: str, notice: str | None
) -> None:
    """They say why the connection was lost; other warnings do not."""
    (callback,) = harness.connection.log_listeners

    class Message(SimpleNamespace):
        def __str__(self) -> str:
            return "going away"

    callback(harness.connection, Message(sqlstate=sqlstate))
    assert harness.session.notice == notice


async def test_an_expected_notification_is_noticed_and_delivered(harness: SessionHarness) -> None:
    """The probe for a pooler sees its own; everything arrives as ever, then and later."""
    arrived = harness.session.expect("probe")
    bring(harness, "a")
    assert not arrived.done()
    bring(harness, "probe")
    assert arrived.done()
    await asyncio.sleep(0)
    bring(harness, "b")
    assert [channel for _, channel, _ in harness.arrived] == ["a", "probe", "b"]


async def test_several_notifications_may_be_expected_at_once(harness: SessionHarness) -> None:
    """The check of poolers and the one that the server listens do not know of each other."""
    first, second = harness.session.expect("probe"), harness.session.expect("listen")
    bring(harness, "probe")
    assert first.done()
    await asyncio.sleep(0)
    bring(harness, "listen")
    assert second.done()
    await asyncio.sleep(0)
    bring(harness, "b")
    assert [channel for _, channel, _ in harness.arrived] == ["probe", "listen", "b"]


async def test_another_may_take_over_what_arrives_while_something_is_expected(
    harness: SessionHarness,
) -> None:
    """The probe still sees its own, and all goes to the new one at once."""
    arrived, taken = harness.session.expect("probe"), list[str]()
    harness.session.deliver_to(lambda _pid, channel, _payload: taken.append(channel))
    bring(harness, "probe")
    assert arrived.done()
    await asyncio.sleep(0)
    bring(harness, "b")
    assert (taken, harness.arrived) == (["probe", "b"], [])


async def test_only_connections_of_our_own_class_call_the_fast_hook(
    harness: SessionHarness,
) -> None:
    """asyncpg calls every connection an instance of ours; its class says what is true."""

    class Plain(asyncpg.Connection):
        def __init__(self) -> None:
            """Have no protocol and no transport."""

        def __del__(self) -> None:
            """Warn of nothing."""

    plain = Plain()
    assert isinstance(plain, FakeConnection)
    assert as_hooked(plain) is None
    assert as_hooked(harness.connection) is harness.connection


# -- connections that are not of our class --------------------------------------------------------


class PublicConnection:
    """A connection of the driver's, which sends LISTEN and UNLISTEN as its callbacks need them."""

    def __init__(self, *, shows_callbacks: bool = False) -> None:
        self.of = FakeConnection()
        self.channels: dict[str, set[Any]] = {}
        if shows_callbacks:
            self._listeners = self.channels

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    async def add_listener(self, channel: str, callback: Any) -> None:
        """Listen, unless there is a callback for the channel already."""
        if channel not in self.channels:
            await self.of.execute(f'LISTEN "{channel}"')
        self.channels.setdefault(channel, set()).add(callback)

    async def remove_listener(self, channel: str, callback: Any) -> None:
        """Forget the callback; unlisten if it was the last one."""
        if channel in self.channels:
            self.channels[channel].discard(callback)
            if not self.channels[channel]:
                del self.channels[channel]
                await self.of.execute(f'UNLISTEN "{channel}"')


def session_on(connection: PublicConnection) -> ListeningSession:
    """Return a session on such a connection, which proves nothing."""
    listen_check = ListenCheck()
    listen_check.is_due = False
    of_driver: Any = connection
    return ListeningSession(
        of_driver,
        on_notification=lambda _pid, _channel, _payload: None,
        on_lost=lambda: None,
        last_contact=lambda: 0.0,
        timeout=5.0,
        listen_check=listen_check,
    )


async def test_r06_a_channel_that_the_server_alone_has_forgotten_is_listened_on_again() -> None:
    """Though the driver, which still has the callback, would send nothing."""
    connection = PublicConnection()
    session = session_on(connection)
    for _ in range(2):
        assert await session.listen(["a"]) == {}
    assert connection.of.statements == ['LISTEN "a"'] * 2


async def test_unlisten_that_was_cancelled_is_given_again_though_the_driver_has_forgotten() -> None:
    """The server still listens then; and once it does not, the driver is asked as ever."""
    connection = PublicConnection()
    session = session_on(connection)
    await session.listen(["a"])
    connection.of.errors = [CANCELLED]
    await session.unlisten(["a"])
    assert connection.of.statements == ['LISTEN "a"', 'UNLISTEN "a"', 'UNLISTEN "a"']
    await session.listen(["a"])
    await session.unlisten(["a"])
    assert connection.of.statements[3:] == ['LISTEN "a"', 'UNLISTEN "a"']


async def test_a_channel_on_which_others_listen_over_the_connection_is_not_unlistened() -> None:
    """The program has a callback of its own there; ours alone is removed."""
    connection = PublicConnection(shows_callbacks=True)
    await connection.add_listener("a", print)
    session = session_on(connection)
    await session.listen(["a", "b"])
    await session.unlisten(["a"])
    await session.unlisten(["b"])
    assert connection.channels == {"a": {print}}
    assert connection.of.statements[1:] == ['LISTEN "a";LISTEN "b"', 'UNLISTEN "b"']


# -- the backend pid ------------------------------------------------------------------------------


async def test_the_backend_pid_is_asked_for(harness: SessionHarness) -> None:
    """Where a pooler has invented one; a refusal leaves it unknown and the connection good."""
    harness.session.pid = 0
    harness.connection.errors = [asyncpg.InsufficientPrivilegeError("denied")]
    await harness.session.find_pid()
    assert harness.session.pid == 0
    harness.connection.answer = [[4711]]
    await harness.session.find_pid()
    assert harness.session.pid == 4711


async def test_a_connection_that_dies_over_the_pid_is_lost(harness: SessionHarness) -> None:
    """What is no refusal ends the session."""
    harness.session.pid = 0
    harness.connection.errors = [asyncpg.ConnectionDoesNotExistError("gone")]
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await harness.session.find_pid()
