"""Passwords and DSNs are told to nobody when a listener cannot start."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, Literal

import asyncpg
import pytest

from asyncnotify import (
    ConnectError,
    ConnectionLostError,
    Listener,
    PoolerError,
    RetryScheduled,
)
from asyncnotify.testing.faults import dns_fails
from asyncnotify.testing.server import BinariesNotFoundError
from tests.hygiene.secret_detector import HALVES, PASSWORD, PAYLOAD, SECRETS, USER
from tests.hygiene.secrets_harness import SHORT_BACKOFF, SOON, WAIT_LIMIT
from tests.support.machine import scaled
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import ConnectionEvent, Notification
    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.secret_detector import SecretDetector
    from tests.hygiene.secrets_harness import SecretsHarness

    Row = Callable[[SecretsHarness], Awaitable[object]]

WRONG: Final = " ".join(HALVES)
ENDINGS: Final[tuple[Literal["reset", "fin"], ...]] = ("reset", "fin")


def test_the_ear_would_hear_a_secret(detector: SecretDetector) -> None:
    """In a text, a log's arguments, an error's parts, its notes, its causes, an event's cause."""
    cause = ValueError("other", PAYLOAD)
    wrapped = RuntimeError("fine")
    wrapped.__cause__ = cause
    noted = RuntimeError("fine")
    noted.add_note(PASSWORD)
    group = ExceptionGroup("fine", [RuntimeError("fine"), noted])
    event = RetryScheduled(attempt=1, delay=0.1, cause=wrapped)
    for secret in (PASSWORD, wrapped, noted, group, event, [Listener, HALVES[1]]):
        detector.record(secret)
        assert detector.containing(*SECRETS)
        detector.texts.clear()
    detector.record(RuntimeError("fine"))
    assert not detector.containing(*SECRETS)


# -- starts that fail -----------------------------------------------------------------------------


async def wrong_password(harness: SecretsHarness) -> None:
    """The server refuses the password."""
    await harness.fails_to_start(harness.listener(password=WRONG), asyncpg.InvalidPasswordError)


async def expired_password(harness: SecretsHarness) -> None:
    """The server refuses a password that was right once."""
    async with harness.altered("VALID UNTIL '2000-01-01'", "VALID UNTIL 'infinity'"):
        await harness.fails_to_start(harness.listener(), asyncpg.InvalidPasswordError)


async def unknown_database(harness: SecretsHarness) -> None:
    """The server has no such database."""
    await harness.fails_to_start(
        harness.listener(database="nowhere"), asyncpg.InvalidCatalogNameError
    )


async def bad_setting(harness: SecretsHarness) -> None:
    """The server refuses a startup parameter."""
    settings = {"work_mem": "much"}
    refusal = asyncpg.InvalidParameterValueError
    await harness.fails_to_start(harness.listener(server_settings=settings), refusal)


async def no_tls(harness: SecretsHarness) -> None:
    """The server has no TLS, and it is wanted; or it is wanted in a way that there is not."""
    for tls in ("require", ssl.create_default_context()):
        await harness.fails_to_start(harness.listener_with_short_start(ssl=tls), ConnectionError)
    await harness.fails_to_start(harness.listener_with_short_start(ssl="verify-full"))
    await harness.fails_to_start(lambda: harness.listener_with_short_start(ssl="nonsense"))


async def full(harness: SecretsHarness) -> None:
    """The server has no connection to give."""
    async with harness.altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"):
        await harness.fails_to_start(
            harness.listener_with_short_start(), asyncpg.TooManyConnectionsError
        )


async def refused(harness: SecretsHarness) -> None:
    """Nobody listens on the port."""
    harness.proxy.refuse()
    await harness.fails_to_start(harness.listener_with_short_start(), ConnectionRefusedError)


async def silent(harness: SecretsHarness) -> None:
    """Nobody answers."""
    harness.proxy.black_hole()
    await harness.fails_to_start(
        harness.listener_with_short_start(connect_timeout=scaled(0.05)), TimeoutError
    )


async def cut_off(harness: SecretsHarness) -> None:
    """The connection is ended as soon as it is accepted."""
    for how in ENDINGS:
        harness.proxy.drop_new(how)
        await harness.fails_to_start(
            harness.listener_with_short_start(), OSError | asyncpg.PostgresError
        )


async def cut_off_by_the_password(harness: SecretsHarness) -> None:
    """The connection is ended while the password is being proved."""
    for answer in (None, b"R"):
        proof = harness.proxy.cut_on(b",p=", answer=answer)
        starting = asyncio.create_task(
            harness.fails_to_start(harness.listener_with_short_start(), ConnectionRefusedError)
        )
        await proof.wait()
        harness.proxy.refuse()
        await starting
        harness.proxy.accept()


async def garbage(harness: SecretsHarness) -> None:
    """Something answers that is no PostgreSQL."""
    harness.proxy.garbage()
    await harness.fails_to_start(
        harness.listener_with_short_start(), OSError | asyncpg.PostgresError
    )
    await harness.fails_to_start(
        harness.listener_with_short_start(ssl="disable"), OSError | asyncpg.PostgresError
    )


STARTS: Final = (
    wrong_password,
    expired_password,
    unknown_database,
    bad_setting,
    no_tls,
    full,
    refused,
    silent,
    cut_off,
    cut_off_by_the_password,
    garbage,
)


@pytest.mark.parametrize("connects_by", ["dsn", "keywords"])
@pytest.mark.parametrize("row", STARTS, ids=lambda row: row.__name__)
async def test_r43_a_start_that_fails_tells_no_secret(harness: SecretsHarness, row: Row) -> None:
    """Neither what start() raises, with all its causes, nor the log, nor the events."""
    await row(harness)
    harness.check()


async def test_r43_a_pooler_that_refuses_tells_no_secret(harness: SecretsHarness) -> None:
    """PgBouncer would never deliver, or does not take the password."""
    try:
        pooler = PgBouncer(harness.server, pool_mode="transaction", users={USER: PASSWORD})
        pooler.start()
    except BinariesNotFoundError as error:
        pytest.skip(str(error))
    with pooler:
        refusal_of_pooler = await harness.fails_to_start(harness.listener(port=pooler.port))
        assert isinstance(refusal_of_pooler, PoolerError)
        refusal = asyncpg.ProtocolViolationError
        await harness.fails_to_start(harness.listener(port=pooler.port, password=WRONG), refusal)
    harness.check()


# -- DSNs that cannot be read ---------------------------------------------------------------------

SPECIAL: Final = "@:/?#[]%,&=+ ;\\'\"{}^~$!*()|<>`\t\n\u2100é"
FORMS: Final = (
    f"host=127.0.0.1 user={USER} password={PASSWORD}",
    f"user={USER} password='{PASSWORD}' host=127.0.0.1",
    PASSWORD,
    "mysql://{login}@{server}",
    "POSTGRESQL://{login}@{server}",
    " postgresql://{login}@{server}",
    "postgresql:/{login}@{server}",
    "postgresql:{login}@{server}",
    "//{login}@{server}",
    "{login}@{server}",
    "jdbc:postgresql://{login}@{server}",
    "postgresql+psycopg2://{login}@{server}",
    f"postgresql://127.0.0.1:1?{HALVES[1]}@{{server}}",
    "postgresql://{login}@[::1/postgres",
    "postgresql://{login}@127.0.0.1:port/postgres",
    "postgresql://{login}@127.0.0.1:-1/postgres",
    "postgresql://{login}@127.0.0.1:99999/postgres",
    "postgresql://{login}@{server}?sslmode=nonsense",
    "postgresql://{login}@{server}?sslmode=verify-full&sslrootcert=/nowhere",
    f"postgresql://{{login}}@{{server}}?sslmode=require&sslkey=/no&sslpassword={HALVES[1]}",
    "postgresql://{login}@{server}?target_session_attrs=nonsense",
    "postgresql://{login}@{server}?no_such_setting=1",
    "postgresql://{login}@{server}?client_encoding=latin1",
    "postgresql://{login}@{server}?port=1,2,3",
    f"postgresql://{USER}@{{server}}?password={HALVES[0]}",
    f"postgresql:///postgres?host=/nowhere&user={USER}&password={HALVES[0]}",
)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+asyncpg"])
async def test_r43_a_password_that_was_not_encoded_is_not_told(
    harness: SecretsHarness, scheme: str
) -> None:
    """Wherever it is cut into a host, a port, a path or a query, no half of it comes out."""
    server = f"127.0.0.1:{harness.server.port}/postgres"
    for start, character in itertools.product((HALVES[0], "5432"), SPECIAL):
        password = f"{start}{character}{HALVES[1]}"
        await fails_mutely(harness, f"{scheme}://{USER}:{password}@{server}")


async def test_r43_a_dsn_of_another_kind_is_not_told(harness: SecretsHarness) -> None:
    """libpq's strings, other databases, other drivers, wrong options: nothing is repeated."""
    login, server = f"{USER}:{HALVES[0]}", f"127.0.0.1:{harness.server.port}/postgres"
    for form in FORMS:
        await fails_mutely(harness, form.format(login=login, server=server))


async def fails_mutely(harness: SecretsHarness, dsn: str) -> None:
    """Start a listener with a DSN that leads nowhere, or to a refusal; check what it tells."""
    with dns_fails():
        limits: dict[str, Any] = {**SOON, "start_timeout": scaled(0.05)}
        await harness.fails_to_start(
            lambda: Listener(dsn, **limits, on_event=harness.detector.record)
        )
    harness.check()


async def test_r43_a_password_that_was_taken_for_a_setting_is_not_told(
    harness: SecretsHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whose name is a host's, a password with ``?`` and ``=``: not even the server tells."""
    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGDATABASE", "postgres")
    password = f"{harness.server.port}?{HALVES[0]}={HALVES[1]}"
    await fails_mutely(harness, f"postgresql://127.0.0.1:{password}@127.0.0.1/postgres")


@pytest.mark.parametrize("connects_by", ["dsn", "keywords"])
async def test_r43_a_password_that_is_no_unicode_is_not_told(
    harness: SecretsHarness, connects_by: str
) -> None:
    """PGPASSWORD in another encoding holds a lone surrogate, which no connection can send."""
    options: dict[str, Any] = {"user": USER, "password": f"{HALVES[0]}\udcff", **SOON}
    if connects_by == "dsn":
        options["dsn"] = f"postgresql://127.0.0.1:{harness.server.port}/postgres"
    else:
        options |= {"host": "127.0.0.1", "port": harness.server.port, "database": "postgres"}
    await harness.fails_to_start(lambda: Listener(**options, on_event=harness.detector.record))
    harness.check()


# -- what users say themselves --------------------------------------------------------------------


OWN_WORDS: Final = f"the vault has {PASSWORD} no more"


@pytest.mark.parametrize("argument", ["password", "connect"])
@pytest.mark.parametrize(
    "own",
    [
        RuntimeError(OWN_WORDS),
        ValueError(OWN_WORDS),
        OSError(OWN_WORDS),
        PermissionError(errno.EACCES, OWN_WORDS, f"/vault/{PASSWORD}"),
        ConnectionRefusedError(OWN_WORDS),
        socket.gaierror(socket.EAI_NONAME, OWN_WORDS),
        ssl.SSLError(1, OWN_WORDS),
        TimeoutError(OWN_WORDS),
        asyncpg.InterfaceError(OWN_WORDS),
        asyncpg.PostgresError(OWN_WORDS),
        ConnectionLostError(OWN_WORDS),
    ],
    ids=lambda own: type(own).__name__,
)
async def test_r43_the_error_of_a_callable_is_a_cause_and_no_more(
    detector: SecretDetector, guarded_server: PostgresServer, argument: str, own: Exception
) -> None:
    """It may hold the secret: only itself, as the last cause, tells it; nothing repeats it."""

    async def fail() -> Any:
        raise own

    options: dict[str, Any] = {
        argument: fail,
        "backoff": SHORT_BACKOFF,
        "start_timeout": scaled(0.1),
    }
    if argument == "password":
        options["dsn"] = guarded_server.dsn_for("postgres", user=USER, password=PASSWORD)
    events: list[ConnectionEvent] = []
    listener = Listener(**options, on_event=events.append)
    with pytest.raises(ConnectError) as refused:
        await listener.start()
    error: BaseException | None = refused.value
    while error is not own:
        assert error is not None
        detector.record(str(error), repr(error), error.args)
        error = error.__cause__
    detector.record(*map(repr, events), listener, listener.stats())
    assert detector.lines
    assert not detector.containing(*SECRETS)


async def test_r43_the_error_of_a_handler_is_logged_and_no_more(harness: SecretsHarness) -> None:
    """Its words are the user's: the log has them, at ERROR; no counter and no report has."""
    told = asyncio.Event()

    def fail(notification: Notification[str]) -> None:
        raise LookupError(notification.payload)

    def tell(*_: object) -> None:
        told.set()

    async with harness.running() as run:
        await run.listener.listen("failing", fail, on_error=tell)
        await run.notify("failing")
        async with asyncio.timeout(WAIT_LIMIT):
            await told.wait()
        [line] = [line for line in harness.detector.lines if PAYLOAD in line]
        assert line.startswith("the handler of 'failing' raised")
        harness.detector.texts.clear()
    harness.check()  # what was heard when everything was looked at
