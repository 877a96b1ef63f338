"""Passwords and DSNs are told to nobody when a listener cannot start."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from typing import TYPE_CHECKING, Any, Final, Literal

import asyncpg
import pytest

from asyncnotify import (
    ConnectError,
    Listener,
    PoolerError,
    RetryScheduled,
)
from asyncnotify.testing.faults import dns_fails
from asyncnotify.testing.server import BinariesNotFoundError
from tests.hygiene.ear import HALVES, PASSWORD, PAYLOAD, SECRETS, USER
from tests.hygiene.scene import PATIENCE, QUICKLY, SOON
from tests.support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncnotify import ConnectionEvent, Notification
    from asyncnotify.testing.server import PostgresServer
    from tests.hygiene.ear import Ear
    from tests.hygiene.scene import Scene

    Row = Callable[[Scene], Awaitable[object]]

WRONG: Final = " ".join(HALVES)
ENDINGS: Final[tuple[Literal["reset", "fin"], ...]] = ("reset", "fin")


def test_the_ear_would_hear_a_secret(ear: Ear) -> None:
    """In a text, a log's arguments, an error's parts, its notes, its causes, an event's cause."""
    cause = ValueError("other", PAYLOAD)
    wrapped = RuntimeError("fine")
    wrapped.__cause__ = cause
    noted = RuntimeError("fine")
    noted.add_note(PASSWORD)
    group = ExceptionGroup("fine", [RuntimeError("fine"), noted])
    event = RetryScheduled(attempt=1, delay=0.1, cause=wrapped)
    for secret in (PASSWORD, wrapped, noted, group, event, [Listener, HALVES[1]]):
        ear.listen_to(secret)
        assert ear.has_heard(*SECRETS)
        ear.heard.clear()
    ear.listen_to(RuntimeError("fine"))
    assert not ear.has_heard(*SECRETS)


# -- starts that fail -----------------------------------------------------------------------------


async def wrong_password(scene: Scene) -> None:
    """The server refuses the password."""
    await scene.refuses(scene.listener(password=WRONG), asyncpg.InvalidPasswordError)


async def expired_password(scene: Scene) -> None:
    """The server refuses a password that was right once."""
    async with scene.altered("VALID UNTIL '2000-01-01'", "VALID UNTIL 'infinity'"):
        await scene.refuses(scene.listener(), asyncpg.InvalidPasswordError)


async def unknown_database(scene: Scene) -> None:
    """The server has no such database."""
    await scene.refuses(scene.listener(database="nowhere"), asyncpg.InvalidCatalogNameError)


async def bad_setting(scene: Scene) -> None:
    """The server refuses a startup parameter."""
    settings = {"work_mem": "much"}
    refusal = asyncpg.InvalidParameterValueError
    await scene.refuses(scene.listener(server_settings=settings), refusal)


async def no_tls(scene: Scene) -> None:
    """The server has no TLS, and it is wanted; or it is wanted in a way that there is not."""
    for tls in ("require", ssl.create_default_context()):
        await scene.refuses(scene.hasty(ssl=tls), ConnectionError)
    for tls in ("verify-full", "nonsense"):
        await scene.refuses(scene.hasty(ssl=tls), asyncpg.ClientConfigurationError)


async def full(scene: Scene) -> None:
    """The server has no connection to give."""
    async with scene.altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"):
        await scene.refuses(scene.hasty(), asyncpg.TooManyConnectionsError)


async def refused(scene: Scene) -> None:
    """Nobody listens on the port."""
    scene.proxy.refuse()
    await scene.refuses(scene.hasty(), ConnectionRefusedError)


async def silent(scene: Scene) -> None:
    """Nobody answers."""
    scene.proxy.black_hole()
    await scene.refuses(scene.hasty(connect_timeout=0.05), TimeoutError)


async def cut_off(scene: Scene) -> None:
    """The connection is ended as soon as it is accepted."""
    for how in ENDINGS:
        scene.proxy.drop_new(how)
        await scene.refuses(scene.hasty(), OSError | asyncpg.PostgresError)


async def cut_off_by_the_password(scene: Scene) -> None:
    """The connection is ended while the password is being proved."""
    for answer in (None, b"R"):
        proof = scene.proxy.cut_on(b",p=", answer=answer)
        starting = asyncio.create_task(scene.refuses(scene.hasty(), ConnectionRefusedError))
        await proof.wait()
        scene.proxy.refuse()
        await starting
        scene.proxy.accept()


async def garbage(scene: Scene) -> None:
    """Something answers that is no PostgreSQL."""
    scene.proxy.garbage()
    await scene.refuses(scene.hasty(), OSError | asyncpg.PostgresError)
    await scene.refuses(scene.hasty(ssl="disable"), OSError | asyncpg.PostgresError)


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


@pytest.mark.parametrize("road", ["dsn", "keywords"])
@pytest.mark.parametrize("row", STARTS, ids=lambda row: row.__name__)
async def test_r43_a_start_that_fails_tells_no_secret(scene: Scene, row: Row) -> None:
    """Neither what start() raises, with all its causes, nor the log, nor the events."""
    await row(scene)
    scene.check()


async def test_r43_a_pooler_that_refuses_tells_no_secret(scene: Scene) -> None:
    """PgBouncer would never deliver, or does not take the password."""
    try:
        pooler = PgBouncer(scene.server, pool_mode="transaction", users={USER: PASSWORD})
        pooler.start()
    except BinariesNotFoundError as error:
        pytest.skip(str(error))
    with pooler:
        deaf = await scene.refuses(scene.listener(port=pooler.port))
        assert isinstance(deaf, PoolerError)
        refusal = asyncpg.ProtocolViolationError
        await scene.refuses(scene.listener(port=pooler.port, password=WRONG), refusal)
    scene.check()


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
async def test_r43_a_password_that_was_not_encoded_is_not_told(scene: Scene, scheme: str) -> None:
    """Wherever it is cut into a host, a port, a path or a query, no half of it comes out."""
    server = f"127.0.0.1:{scene.server.port}/postgres"
    for start, character in itertools.product((HALVES[0], "5432"), SPECIAL):
        password = f"{start}{character}{HALVES[1]}"
        await fails_mutely(scene, f"{scheme}://{USER}:{password}@{server}")


async def test_r43_a_dsn_of_another_kind_is_not_told(scene: Scene) -> None:
    """libpq's strings, other databases, other drivers, wrong options: nothing is repeated."""
    login, server = f"{USER}:{HALVES[0]}", f"127.0.0.1:{scene.server.port}/postgres"
    for form in FORMS:
        await fails_mutely(scene, form.format(login=login, server=server))


async def fails_mutely(scene: Scene, dsn: str) -> None:
    """Start a listener with a DSN that leads nowhere, or to a refusal; check what it tells."""
    with dns_fails():
        limits: dict[str, Any] = {**SOON, "start_timeout": 0.05}
        await scene.refuses(Listener(dsn, **limits, on_event=scene.ear.listen_to))
    scene.check()


async def test_r43_a_password_that_was_taken_for_a_setting_is_not_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whose name is a host's, a password with ``?`` and ``=``: not even the server tells."""
    monkeypatch.setenv("PGUSER", "postgres")
    monkeypatch.setenv("PGDATABASE", "postgres")
    password = f"{scene.server.port}?{HALVES[0]}={HALVES[1]}"
    await fails_mutely(scene, f"postgresql://127.0.0.1:{password}@127.0.0.1/postgres")


@pytest.mark.parametrize("road", ["dsn", "keywords"])
async def test_r43_a_password_that_is_no_unicode_is_not_told(scene: Scene, road: str) -> None:
    """PGPASSWORD in another encoding holds a lone surrogate, which no connection can send."""
    options: dict[str, Any] = {"user": USER, "password": f"{HALVES[0]}\udcff", **SOON}
    if road == "dsn":
        options["dsn"] = f"postgresql://127.0.0.1:{scene.server.port}/postgres"
    else:
        options |= {"host": "127.0.0.1", "port": scene.server.port, "database": "postgres"}
    await scene.refuses(Listener(**options, on_event=scene.ear.listen_to))
    scene.check()


# -- what users say themselves --------------------------------------------------------------------


OWN_WORDS: Final = f"the vault has {PASSWORD} no more"


@pytest.mark.parametrize("argument", ["password", "connect"])
@pytest.mark.parametrize("own", [RuntimeError(OWN_WORDS), ValueError(OWN_WORDS)])
async def test_r43_the_error_of_a_callable_is_a_cause_and_no_more(
    ear: Ear, guarded_server: PostgresServer, argument: str, own: Exception
) -> None:
    """It may hold the secret: only itself, as the last cause, tells it; nothing repeats it."""

    async def fail() -> Any:  # noqa: ANN401 - it never returns
        raise own

    options: dict[str, Any] = {argument: fail, "backoff": QUICKLY, "start_timeout": 0.1}
    if argument == "password":
        options["dsn"] = guarded_server.dsn_for("postgres", user=USER, password=PASSWORD)
    events: list[ConnectionEvent] = []
    listener = Listener(**options, on_event=events.append)
    with pytest.raises(ConnectError) as refused:
        await listener.start()
    error: BaseException | None = refused.value
    while error is not own:
        assert error is not None
        ear.listen_to(str(error), repr(error), error.args)
        error = error.__cause__
    ear.listen_to(*map(repr, events), listener, listener.stats())
    assert ear.lines
    assert not ear.has_heard(*SECRETS)


async def test_r43_the_error_of_a_handler_is_logged_and_no_more(scene: Scene) -> None:
    """Its words are the user's: the log has them, at ERROR; no counter and no report has."""
    told = asyncio.Event()

    def fail(notification: Notification[str]) -> None:
        raise LookupError(notification.payload)

    def tell(*_: object) -> None:
        told.set()

    async with scene.running() as run:
        await run.listener.listen("failing", fail, on_error=tell)
        await run.notify("failing")
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        [line] = [line for line in scene.ear.lines if PAYLOAD in line]
        assert line.startswith("the handler of 'failing' raised")
        scene.ear.heard.clear()
    scene.check()  # what was heard when everything was looked at
