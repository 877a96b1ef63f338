"""What a newcomer reads after a mistake: what is wrong, what was given, and what to do instead."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio
import sqlalchemy
from sqlalchemy.ext import asyncio as sqlalchemy_async

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    Channel,
    ExponentialBackoff,
    Keepalive,
    Listener,
    Notifier,
)
from asyncnotify.triggers import Table
from tests.support.machine import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

NOT_SHOWN = "hunter2"
"""A payload or a password of the mistakes: no message may hold it."""

DSN = "postgresql://localhost/db"
ENGINE = "postgresql+asyncpg://localhost/db"
SHORT = scaled(0.05)  # seconds


@dataclass(frozen=True)
class Message:
    """
    A mistake, and a pattern for each part of the message that it deserves.

    Attributes:
        mistake: Makes it, with a listener that runs.
        problem: What is wrong.
        value: What was given, or where.
        remedy: What to do instead. At most one of the three may be missing.
    """

    mistake: Callable[[Listener], Any]
    problem: str | None = None
    value: str | None = None
    remedy: str | None = None


def nothing(_: object) -> None:
    """Handle a notification by doing nothing."""


async def awaited(_: object) -> None:
    """Handle a notification by doing nothing, in a coroutine."""


def generating(item: object) -> Iterator[object]:
    """Handle nothing: calling a generator runs none of its body."""
    yield item


def growing(attempt: object) -> object:
    """Be called with one argument."""
    return attempt


def of_two(_: object, b: object) -> object:
    """Be called with two arguments."""
    return b


def of_four(_: object, pid: int, channel: str, payload: str) -> tuple[int, str, str]:
    """Be called as asyncpg calls its callbacks."""
    return pid, channel, payload


class Order:
    """What is taken for a type, a payload and a handler."""


async def in_thread(function: Callable[[], object]) -> object:
    """Call a function that blocks."""
    return await asyncio.to_thread(function)


async def made(mistake: Callable[[Listener], Any], listener: Listener) -> None:
    """Make a mistake, and wait for it if it takes time."""
    outcome = mistake(listener)
    if inspect.isawaitable(outcome):
        await outcome


async def after_close(made: Listener | Notifier, call: Callable[[Any], Any]) -> object:
    """Call something of what has been closed."""
    async with made:
        pass
    return await call(made)


def after_close_in_thread(made: Any) -> None:
    """Send by what has been closed."""
    with made:
        pass
    made.notify("orders")


def get_in_thread(listener: BlockingListener, timeout: object) -> object:
    """Take an item where none comes."""
    with listener, listener.stream("orders") as stream:
        return stream.get(timeout)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def enter(listener: Any) -> None:
    """Enter without ``async``."""
    with listener:
        pass


def iterate(listener: Any) -> list[object]:
    """Iterate without ``async``."""
    return list(listener.stream("orders"))


async def enter_async(listener: Any) -> None:
    """Enter with an ``async`` that does not belong there."""
    async with listener:
        pass


async def enter_twice(listener: Listener) -> None:
    """Enter a stream within itself."""
    async with listener.stream("orders") as stream, stream:
        pass


async def iterate_after_end(listener: Listener) -> None:
    """Use a stream after its block."""
    async with listener.stream("orders") as stream:
        pass
    async for _ in stream:
        pass


async def with_pool(listener: Listener, use: Callable[[asyncpg.Pool[Any]], Any]) -> None:
    """Send by a pool of one connection."""
    pool = await asyncpg.create_pool(dsn_of(listener), min_size=1, max_size=1)
    try:
        await use(pool)
    finally:
        pool.terminate()


async def by_closed_pool(pool: asyncpg.Pool[Any]) -> None:
    """Send by a pool that is closed."""
    await pool.close()
    async with Notifier(pool=pool):
        pass


async def by_exhausted_pool(pool: asyncpg.Pool[Any]) -> None:
    """Send by a pool whose connection is in use."""
    async with (
        pool.acquire(),
        Notifier(pool=pool, connect_timeout=SHORT, start_timeout=SHORT),
    ):
        pass


async def within(listener: Listener, *statements: str, close: bool = False) -> None:
    """Send within an asyncpg connection that has executed these statements."""
    connection = await asyncpg.connect(dsn_of(listener))
    try:
        for statement in statements:
            try:
                await connection.execute(statement)
            except asyncpg.PostgresError:
                continue
        if close:
            await connection.close()
        await listener.notify("orders", NOT_SHOWN, connection=connection)
    finally:
        connection.terminate()


async def by_one_connection(listener: Listener) -> None:
    """Start two listeners whose ``connect=`` return the same connection."""
    connection = await asyncpg.connect(dsn_of(listener))

    async def connect() -> Any:
        return connection

    async with Listener(connect=connect):
        await starting(Listener(connect=connect, start_timeout=scaled(1.0)))


async def in_use(listener: Listener) -> None:
    """Send within a connection on which a statement runs."""
    connection = await asyncpg.connect(dsn_of(listener))
    sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    try:
        await asyncio.sleep(0)  # it has been sent
        await listener.notify("orders", NOT_SHOWN, connection=connection)
    finally:
        connection.terminate()
        await asyncio.wait({sleeping})
        sleeping.exception()


async def given_back(listener: Listener) -> None:
    """Send within a connection after the block that has acquired it."""

    async def use(pool: asyncpg.Pool[Any]) -> None:
        async with pool.acquire() as connection:
            pass
        await listener.notify("orders", NOT_SHOWN, connection=connection)

    await with_pool(listener, use)


async def not_entered(listener: Listener) -> None:
    """Send within a connection of SQLAlchemy that nothing has begun."""
    engine = sqlalchemy_async.create_async_engine(ENGINE)
    await listener.notify("orders", NOT_SHOWN, connection=engine.connect())


async def within_threads(listener: Listener) -> None:
    """Send from a thread within a connection that has to be awaited."""
    connection = await asyncpg.connect(dsn_of(listener))

    def send() -> None:
        with BlockingNotifier(dsn_of(listener)) as notifier:
            notifier.notify("orders", NOT_SHOWN, connection=connection)

    try:
        await asyncio.to_thread(send)
    finally:
        connection.terminate()


async def within_psycopg(listener: Listener) -> None:
    """Send within a transaction of psycopg that has failed."""
    async with await psycopg.AsyncConnection.connect(dsn_of(listener)) as connection:
        with pytest.raises(psycopg.Error):
            await connection.execute("SELECT 1/0")
        await listener.notify("orders", NOT_SHOWN, connection=connection)


async def within_psycopgs_threads(listener: Listener) -> None:
    """Send within a connection that blocks."""
    with psycopg.connect(dsn_of(listener)) as connection:
        await listener.notify("orders", connection=connection)


async def connecting(listener: Listener, returning: Callable[[str], Any]) -> None:
    """Start a listener whose ``connect=`` returns something."""

    async def connect() -> Any:
        made = returning(dsn_of(listener))
        return await made if inspect.isawaitable(made) else made

    await starting(Listener(connect=connect, start_timeout=scaled(1.0)))


async def begun(dsn: str) -> object:
    """Return a connection in a transaction."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("BEGIN")
    return connection


async def starting(listener: Listener | Notifier) -> None:
    """Start what cannot start."""
    try:
        await listener.start()
    finally:
        await listener.aclose()


def dsn_of(listener: Listener) -> str:
    """Return the DSN that a listener of these tests was made with."""
    return str(_dsns[listener])


_dsns: dict[Listener, str] = {}


def elsewhere(listener: Listener) -> object:
    """Send from an event loop of another thread."""
    return in_thread(lambda: asyncio.run(listener.notify("orders")))


def without_loop(listener: Listener) -> object:
    """Send from a thread in which no event loop runs."""
    return in_thread(lambda: listener.notify("orders").send(None))


def refused(**options: Any) -> Callable[[Listener], Any]:
    """Return what makes a listener with wrong options."""
    return lambda _: Listener(DSN, **options)


def connect_as_coroutine(listener: Listener) -> None:
    """Call what connects, and give what that returns."""
    with closing(listener.start()) as coroutine:
        Listener(connect=coroutine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def dsn(text: Any) -> Callable[[Listener], Any]:
    """Return what makes a listener with a wrong DSN."""
    return lambda _: Listener(text)


def listen(*args: Any, **options: Any) -> Callable[[Listener], Any]:
    """Return what listens with wrong arguments."""
    return lambda listener: listener.listen(*args, **options)


def notify(*args: Any, **options: Any) -> Callable[[Listener], Any]:
    """Return what sends with wrong arguments."""
    return lambda listener: listener.notify(*args, **options)


def called(name: str, *args: Any, **options: Any) -> Callable[[Listener], Any]:
    """Return what calls a method with wrong arguments."""

    def call(listener: Listener) -> object:
        return getattr(listener, name)(*args, **options)

    return call


def send_many(pairs: Any) -> Callable[[Listener], Any]:
    """Return what sends many with a wrong argument."""
    return lambda listener: listener.notify_many(pairs)


def channel(*args: Any, **options: Any) -> Callable[[Listener], Any]:
    """Return what makes a wrong Channel."""
    return lambda _: Channel(*args, **options)


def encoding(payload: object, *args: Any, **options: Any) -> Callable[[Listener], Any]:
    """Return what encodes a payload by a Channel that does not take it."""
    made: Any = Channel("orders", *args, **options)
    return lambda _: made.encode(payload)


def connected(thing: Callable[[], object]) -> Callable[[Listener], Any]:
    """Return what sends within an object that is no connection."""
    return lambda listener: listener.notify("orders", NOT_SHOWN, connection=thing())


async def by_coroutine(listener: Listener) -> None:
    """Send within what nobody has awaited."""
    with closing(asyncpg.connect(DSN)) as coroutine:
        await listener.notify("orders", NOT_SHOWN, connection=coroutine)


def other_database(listener: Listener) -> str:
    """Return a DSN of a database that is not there."""
    return f"{dsn_of(listener).rpartition('/')[0]}/nope"


def other_role(listener: Listener) -> str:
    """Return a DSN of a role that is not there."""
    return re.sub(r"//[^@]*@", "//nope@", dsn_of(listener))


def dead_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


SECONDS = "positive number of seconds"
CALLABLE = "must be callable"
TAKEN = "must be an asyncpg Connection"
UNKNOWN = "unexpected keyword argument"
PARTS = "can be given as host="
BEGIN = "must begin with postgresql://"
START = "`async with` or `await start\\(\\)`"

OF_CONSTRUCTORS: dict[str, Message] = {
    "a typing error": Message(refused(hartbeat=3), UNKNOWN, "'hartbeat'", "mean heartbeat="),
    "another one": Message(refused(heartbeat_timout=3), UNKNOWN, "_timout'", "heartbeat_timeout="),
    "libpq's name": Message(refused(dbname="x"), UNKNOWN, "'dbname'", "mean database="),
    "SQLAlchemy's name": Message(refused(username="x"), UNKNOWN, "'username'", "mean user="),
    "another library's name": Message(refused(reconnect=True), UNKNOWN, "reconnect", "backoff="),
    "keepalives": Message(refused(keepalives=1), UNKNOWN, "'keepalives'", "mean keepalive="),
    "the size of a pool": Message(refused(min_size=1), "is one of a pool", "'min_size'", "pool="),
    "the driver's class": Message(
        refused(connection_class=dict), "cannot be given", "'connection_class'", "as connect="
    ),
    "the size of a cache": Message(
        refused(statement_cache_size="x"), "statement_cache_size must be", "'x'", "at least 0"
    ),
    "a pool for the DSN of a notifier": Message(
        lambda _: Notifier(asyncpg.create_pool(DSN)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        "a pool is given",
        None,
        "as pool=",
    ),
    "an unknown name": Message(refused(colour=1), UNKNOWN, "'colour'"),
    "asyncpg's timeout": Message(refused(timeout=5), "not an argument", "timeout=", "connect_time"),
    "keepalive=True": Message(refused(keepalive=True), "must be", "not bool", "a Keepalive"),
    "keepalive=60": Message(refused(keepalive=60), "must be", "not int", "a Keepalive"),
    "the class Keepalive": Message(refused(keepalive=Keepalive), "must be a", "class Keepalive"),
    "seconds as text": Message(refused(heartbeat="10"), "heartbeat", "'10'", SECONDS),
    "no seconds": Message(refused(heartbeat=0), "heartbeat", "not 0", SECONDS),
    "negative seconds": Message(refused(heartbeat=-1), "heartbeat", "not -1", SECONDS),
    "NaN seconds": Message(refused(heartbeat=float("nan")), "heartbeat", "not nan", SECONDS),
    "infinite seconds": Message(refused(start_timeout=float("inf")), "start_", "not inf", "None"),
    "None seconds": Message(refused(connect_timeout=None), "connect_timeout", "None", SECONDS),
    "a bool as seconds": Message(refused(close_timeout=True), "close_timeout", "True", SECONDS),
    "a number as backoff": Message(refused(backoff=2), CALLABLE, "not 2", "ExponentialBackoff"),
    "a class as backoff": Message(
        refused(backoff=ExponentialBackoff), "only makes an object", "the class", "give an object"
    ),
    "a list as backoff": Message(refused(backoff=[1, 2]), CALLABLE, "type list"),
    "a backoff of asyncpg": Message(
        refused(backoff=growing), "missing", "attempt", "define it with 0"
    ),
    "a negative cap": Message(lambda _: ExponentialBackoff(cap=-1), "cap must", "-1", SECONDS),
    "no idle time": Message(lambda _: Keepalive(idle=0), "idle must be", "not 0", "1 to 32767"),
    "an async on_event": Message(refused(on_event=awaited), "not awaited", "on_event", "events"),
    "on_event of nothing": Message(refused(on_event=lambda: 1), "too many", "the event", "define"),
    "on_event as text": Message(refused(on_event="log"), CALLABLE, "type str"),
    "connect= as text": Message(lambda _: Listener(connect=DSN), CALLABLE, "type str"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "connect= as a coroutine": Message(
        connect_as_coroutine,
        CALLABLE,
        "type coroutine",
        "the function itself",
    ),
    "connect= beside a DSN": Message(
        refused(connect=asyncpg.connect), "go unused", "dsn", "connect= .* makes"
    ),
    "server settings": Message(refused(server_settings=["x"]), "must be", "not a list", "dict of"),
    "a setting that is a number": Message(
        refused(server_settings={"work_mem": 5}), "must be", "one of its values", "dict of str"
    ),
    "a password of bytes": Message(
        refused(password=NOT_SHOWN.encode()), "must be", "type bytes", "a str or a callable"
    ),
    "an unknown ssl": Message(refused(ssl="perhaps"), "ssl must be", None, "verify-full"),
    "a port that is no number": Message(refused(port="54x2"), "must be a number", None, "65535"),
    "a port that is negative": Message(refused(port=-5), "must be a number", None, "65535"),
    "a pool for a listener": Message(refused(pool=object()), "cannot listen", "a pool", "Notifier"),
    "an unknown option of a notifier": Message(
        lambda _: Notifier(DSN, retry_timout=5), UNKNOWN, "'retry_timout'", "mean retry_timeout="
    ),
    "an option of a listener": Message(lambda _: Notifier(DSN, heartbeat=5), UNKNOWN, "heartbeat"),
    "an unknown option for threads": Message(
        lambda _: BlockingListener(DSN, hartbeat=5), UNKNOWN, "'hartbeat'", "mean heartbeat="
    ),
    "a queue of none": Message(lambda _: Notifier(DSN, queue=0), "whole", "not 0", "at least 1"),
    "a pool of another library": Message(
        lambda _: Notifier(pool=sqlalchemy_async.create_async_engine(ENGINE)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        "must be a pool of asyncpg",
        "sqlalchemy.AsyncEngine",
    ),
    "a pool beside a DSN": Message(
        lambda _: Notifier(DSN, pool=asyncpg.create_pool(DSN)), "go unused", "dsn", "pool= makes"
    ),
    "a pool that grows old": Message(
        lambda _: Notifier(pool=asyncpg.create_pool(DSN), max_connection_age=5),
        "cannot be combined",
        "max_connection_age=",
    ),
    "an engine that blocks": Message(
        lambda _: Listener.from_sqlalchemy(sqlalchemy.create_engine("postgresql+psycopg://x/y")),
        "is needed",
        "sqlalchemy.Engine",
        "AsyncEngine",
    ),
    "an engine of another driver": Message(
        lambda _: Listener.from_sqlalchemy(
            sqlalchemy_async.create_async_engine("postgresql+psycopg://x/y")
        ),
        "is needed",
        r"not postgresql\+psycopg",
        r"postgresql\+asyncpg",
    ),
    "an engine beside a DSN": Message(
        lambda _: Listener.from_sqlalchemy(sqlalchemy_async.create_async_engine(ENGINE), dsn=DSN),
        "go unused",
        "dsn",
        "the engine",
    ),
}

OF_DSNS: dict[str, Message] = {
    "a DSN of bytes": Message(dsn(b"x"), "dsn must be", "type bytes", "a str"),
    "a DSN in a dict": Message(dsn({"host": "x"}), "dsn must be", "type dict", "a str"),
    "an engine as DSN": Message(
        lambda _: Listener(sqlalchemy_async.create_async_engine(ENGINE)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        "dsn must be",
        "AsyncEngine",
        "from_sqlalchemy",
    ),
    "an empty DSN": Message(dsn(""), "is empty", "DSN", "leave dsn out"),
    "words of libpq": Message(dsn(f"host=x password={NOT_SHOWN}"), "is no URL", None, PARTS),
    "a host alone": Message(dsn("localhost"), "is no URL", None, PARTS),
    "a DSN in quotes": Message(dsn(f"'{DSN}'"), "is in quotes", "DSN", BEGIN),
    "a line of a file": Message(dsn(f"{DSN}\n"), "white space around it", "end of the line", BEGIN),
    "a space before it": Message(dsn(f" {DSN}"), "white space around it", "DSN", BEGIN),
    "a space in it": Message(dsn("postgresql://lo cal/db"), "has a space", "DSN", "%20"),
    "another database": Message(dsn("mysql://x/y"), "no URL of PostgreSQL", "mysql://", BEGIN),
    "another driver": Message(
        dsn(f"postgresql+psycopg://u:{NOT_SHOWN}@h/d"), "another driver", r"\+psycopg", BEGIN
    ),
    "a scheme in capitals": Message(dsn("POSTGRESQL://x/y"), "capital letters", "scheme", BEGIN),
    "a DSN of Java": Message(dsn("jdbc:postgresql://x/y"), "no URL of PostgreSQL", None, BEGIN),
    "a port of letters": Message(dsn("postgresql://h:port/d"), "port must", None, "between 1 and"),
    "a port too large": Message(dsn("postgresql://h:99999/d"), "port must", None, "between 1 and"),
    "a slash in the password": Message(
        dsn(f"postgresql://u:{NOT_SHOWN}/x@h/d"), "cannot be read", None, "percent-encoded"
    ),
    "a masked password": Message(
        dsn("postgresql://u:***@h/d"), "has masked", "password", "the object itself"
    ),
    "an unknown sslmode": Message(dsn(f"{DSN}?sslmode=on"), "must be one", "sslmode", "require"),
    "the size of a pool": Message(
        dsn(f"{DSN}?pool_size=5"), "cannot be honoured", "pool_size", "remove it"
    ),
    "a pooler": Message(dsn(f"{DSN}?pgbouncer=true"), "cannot be hon", "pgbouncer", "itself or"),
    "libpq's timeout": Message(
        dsn(f"{DSN}?connect_timeout=3"), "cannot be honoured", "connect_timeout", "argument"
    ),
}

OF_HANDLERS: dict[str, Message] = {
    "no handler": Message(listen("orders"), "missing 1 required", "'handler'"),
    "None as handler": Message(listen("orders", None), CALLABLE, "NoneType", "function itself"),
    "two arguments": Message(
        listen("orders", of_two), "missing a required", "'b'", "define it with 1"
    ),
    "no arguments": Message(
        listen("orders", lambda: 1), "too many", "the Notification", "define it with 1"
    ),
    "a callback of asyncpg": Message(listen("orders", of_four), "missing", "'pid'", "n.payload"),
    "a generator": Message(listen("orders", generating), "run nothing", "`yield`", "remove the"),
    "a class": Message(listen("orders", Order), "only makes", "the class Order", "give a function"),
    "the handler first": Message(listen(nothing, "orders"), "not str", "function", "comes first"),
    "on() without parentheses": Message(
        called("on", nothing),
        "not str",
        "function",
        "@listener.on",
    ),
    "resync as text": Message(listen("orders", nothing, resync="x"), CALLABLE, "type str"),
    "resync of nothing": Message(
        listen("orders", nothing, resync=lambda: 1), "too many", "the Gap", "define it with 1"
    ),
    "on_error of one": Message(
        listen("orders", nothing, on_error=nothing), "too many", "the error", "with 2"
    ),
    "no concurrency": Message(listen("orders", nothing, concurrency=0), "whole", "not 0", "least"),
    "a coroutine in a thread": Message(
        listen("orders", awaited, in_thread=True), "nothing can be awaited", None, "leave out"
    ),
    "latest= with buffer=": Message(
        listen("orders", nothing, latest=True, buffer=5), "keeps one", "buffer=", "leave out"
    ),
    "an unknown policy": Message(
        listen("orders", nothing, overflow="block"), "must be", "'block'", "'drop_oldest'"
    ),
    "half a buffer": Message(listen("orders", nothing, buffer=1.5), "whole", "1.5", "at least 1"),
    "an unknown option": Message(listen("orders", nothing, overfow="x"), UNKNOWN, "'overfow'"),
    "gaps= for a handler": Message(listen("orders", nothing, gaps=True), UNKNOWN, "'gaps'"),
    "a timeout as text": Message(
        listen("orders", nothing, timeout="5"), "must be", "'5'", "number of seconds"
    ),
    "no channel": Message(lambda listener: listener.stream(), "needs", "stream", "one channel"),
    "a list of channels": Message(
        called("stream", ["a", "b"]),
        "not str",
        "list",
        r"stream\('a', 'b'\)",
    ),
    "gaps as text": Message(
        called("stream", "a", gaps="yes"),
        "gaps must be",
        "'yes'",
        "True or False",
    ),
    "no batch": Message(
        lambda listener: listener.stream("a").batches(0), "limit must", "not 0", "at least 1"
    ),
}

OF_NAMES: dict[str, Message] = {
    "an empty name": Message(listen("", nothing), "is empty", "''", "1 to 63"),
    "a long name": Message(listen("c" * 64, nothing), "is 64 bytes", "ccc", "at most 63"),
    "a name of bytes": Message(listen(b"orders", nothing), "not str", "type bytes", "decode it"),
    "a number as name": Message(listen(7, nothing), "not str", "7 is of type int"),
    "NUL in a name": Message(listen("a\0b", nothing), "contains a NUL", r"a\\x00b"),
    "the class Channel": Message(listen(Channel, nothing), "not str", "type", r"Channel\('orders"),
    "a Table as name": Message(
        listen(Table("orders", key="id"), nothing), "not str", "type Table", "is its changes"
    ),
    "a type as name": Message(
        channel(dict, "orders"), "not str", "of type type", r"Channel\('orders', dict\)"
    ),
    "a handler for a stream": Message(
        called("stream", "a", nothing), "not str", "type function", "stream.. takes channels only"
    ),
    "a dict as name": Message(
        notify({"key": NOT_SHOWN}, "orders"), "not str", "of type dict", "channel comes first"
    ),
}

OF_PAYLOADS: dict[str, Message] = {
    "a dict": Message(notify("a", {"key": NOT_SHOWN}), "not str", "type dict", r"Channel\('a'"),
    "a number": Message(notify("a", 42), "not str", "type int", r"Channel\('a', int\)"),
    "None": Message(notify("a", None), "not str", "NoneType", "leave it out"),
    "bytes": Message(notify("a", NOT_SHOWN.encode()), "not str", "type bytes", "decode it"),
    "9,000 bytes": Message(notify("a", "x" * 9000), "at most 7999", "9000 bytes", "send a key"),
    "NUL": Message(notify("a", f"{NOT_SHOWN}\0"), "contains a NUL", "channel 'a'"),
    "a lone surrogate": Message(notify("a", f"{NOT_SHOWN}\ud800"), "surrogate", "channel 'a'"),
    "data=": Message(notify("a", data=NOT_SHOWN), UNKNOWN, "'data'"),
    "a mapping of pairs": Message(send_many({"a": "b"}), "no pairs", "type dict", r"items\(\)"),
    "a text of pairs": Message(send_many("ab"), "no pairs", "type str", "a list of"),
    "texts as pairs": Message(send_many(["ab"]), "must be", "not a str", r"as \('orders', '1'\)"),
    "triples": Message(send_many([("a", "b", "c")]), "must be", "a tuple of 3", "'orders', '1'"),
    "retry as text": Message(notify("a", retry="yes"), "must be", "'yes'", "True or False"),
}

OF_CHANNELS: dict[str, Message] = {
    "the name of a type": Message(channel("a", "Order"), "not the name", "Order", "without quotes"),
    "an object": Message(channel("a", Order()), "is none", "of type Order", "have a type, as"),
    "a module": Message(channel("a", re), "is none", "of type module", "have a type, as"),
    "a function as type": Message(channel("a", nothing), "is none", "function", "as encode= and"),
    "a type that none codes": Message(channel("a", socket.socket), "cannot be coded", "socket"),
    "a type and functions": Message(
        channel("a", int, encode=str), "replace the type", "encode", "give a type, or functions"
    ),
    "a Channel that only sends": Message(
        lambda listener: listener.listen(Channel("a", encode=str), nothing),
        "nothing can be received",
        "'a'",
        "made without decode=",
    ),
    "an async encoder": Message(
        channel("a", encode=awaited, decode=int), "not awaited", "encode", "a plain function"
    ),
    "an encoder as text": Message(channel("a", encode="json"), CALLABLE, "type str"),
    "an encoder to numbers": Message(
        encoding(3, encode=hash, decode=int), "once it is encoded", "type int", "str or byt"
    ),
    "another type": Message(encoding(NOT_SHOWN, int), "is of type str", "'orders'", "not int"),
    "one key": Message(channel("a", keys=b"x" * 32), "not one key", "keys", "a list of keys"),
    "a short key": Message(channel("a", keys=[b"x"]), "a key is", "1 bytes", "at least 16"),
    "a channel in two forms": Message(
        lambda listener: listener.stream("a", Channel("a", int)), "two forms", "'a'", "a stream for"
    ),
}

OF_LIFE: dict[str, Message] = {
    "listen() before start()": Message(
        lambda _: Listener(DSN).listen("a", nothing), "has not been started", None, START
    ),
    "a stream before start()": Message(
        lambda _: anext(Listener(DSN).stream("a")), "has not been started", None, START
    ),
    "listen() after aclose()": Message(
        lambda listener: after_close(
            Listener(dsn_of(listener)), lambda closed: closed.listen("a", nothing)
        ),
        "the listener is closed",
        None,
        r"start\(\) starts it again",
    ),
    "notify() after aclose()": Message(
        lambda listener: after_close(Notifier(dsn_of(listener)), lambda closed: closed.notify("a")),
        "the notifier is closed",
        "not sent",
        r"start\(\) starts it again",
    ),
    "notify() after close()": Message(
        lambda listener: in_thread(
            lambda: after_close_in_thread(BlockingListener(dsn_of(listener)))
        ),
        "is closed",
        "listener, notifier or log",
        r"start\(\) starts it again",
    ),
    "before start() in threads": Message(
        lambda _: in_thread(lambda: BlockingListener(DSN).listen("a", nothing)),
        "has not been started",
        None,
        r"use `with` or start\(\)",
    ),
    "with": Message(lambda _: enter(Listener(DSN)), "context manager", "'Listener'"),
    "async with": Message(
        lambda _: enter_async(BlockingListener(DSN)), "asynchronous context", "'BlockingListener'"
    ),
    "for": Message(iterate, "not iterable", "'Stream'"),
    "a stream entered twice": Message(enter_twice, "entered already", "'orders'", "make another"),
    "a stream after its end": Message(
        iterate_after_end, "has been closed", "'orders'", r"listener\.stream\(\)"
    ),
    "another event loop": Message(
        elsewhere, "another event loop", "another thread", "run_coroutine_threadsafe"
    ),
    "another thread": Message(
        without_loop, "another event loop", None, "run_coroutine_threadsafe|BlockingListener"
    ),
    "blocking in a coroutine": Message(
        lambda _: BlockingListener(DSN).start(),
        "keep the event loop of this thread",
        "a blocking call",
        "use Listener",
    ),
    "blocking notifier in a coroutine": Message(
        lambda _: BlockingNotifier(DSN).notify("a"),
        "keep the event loop of this thread",
        "a blocking call",
        "use Listener, Notifier and Log",
    ),
    "a timeout of get()": Message(
        lambda listener: in_thread(
            lambda: get_in_thread(BlockingListener(dsn_of(listener)), timeout=0.01)
        ),
        "got no item",
        "'orders'",
    ),
    "a timeout of get() as text": Message(
        lambda listener: in_thread(
            lambda: get_in_thread(BlockingListener(dsn_of(listener)), timeout="5")
        ),
        "timeout must be",
        "'5'",
        "number of seconds",
    ),
    "waiting too short": Message(
        lambda listener: listener.wait_closed(0.01), "not closed", "0.01 s"
    ),
}

OF_CONNECTIONS: dict[str, Message] = {
    "one connection for two": Message(
        by_one_connection, "same connection twice", "another listener", "a fresh one"
    ),
    "a connection in use": Message(
        in_use, "in progress", "nothing was sent", "each task a connection of its own"
    ),
    "a connection that a pool has back": Message(
        given_back, "released back", "nothing was sent", "within the block"
    ),
    "a connection not entered": Message(
        not_entered, "has not been started", "nothing was sent", "by `async with`"
    ),
    "a session without an engine": Message(
        connected(sqlalchemy_async.AsyncSession),
        "Could not locate a bind",
        "nothing was sent",
        "make it with one",
    ),
    "a coroutine as connection": Message(by_coroutine, TAKEN, "type coroutine", "await it"),
    "what acquires, as connection": Message(
        connected(lambda: asyncpg.create_pool(DSN).acquire()), TAKEN, "Context", r"pool\.acquire"
    ),
    "asyncpg's connection in threads": Message(
        within_threads, "connection must be", "asyncpg", "to be awaited"
    ),
    "an engine as connection": Message(
        connected(lambda: sqlalchemy_async.create_async_engine(ENGINE)),
        TAKEN,
        "AsyncEngine",
        r"engine\.begin\(\)",
    ),
    "a pool as connection": Message(
        connected(lambda: asyncpg.create_pool(DSN)), TAKEN, "asyncpg.Pool", r"pool\.acquire\(\)"
    ),
    "a DSN as connection": Message(connected(lambda: DSN), TAKEN, "type str"),
    "a connection that blocks": Message(
        within_psycopgs_threads, "it blocks", "psycopg.Connection", "the async one"
    ),
    "a closed connection": Message(
        lambda listener: within(listener, close=True),
        "connection is closed",
        "nothing was sent",
        "give one that is open",
    ),
    "a failed transaction": Message(
        lambda listener: within(listener, "BEGIN", "SELECT 1/0"),
        "transaction is aborted",
        "nothing was sent",
        "roll the transaction .* back",
    ),
    "psycopg's failed transaction": Message(
        within_psycopg, "transaction is aborted", "nothing was sent", "roll the transaction .* back"
    ),
    "a closed pool": Message(
        lambda listener: with_pool(listener, by_closed_pool), "is closed", "the pool", "is open"
    ),
    "a pool in use": Message(
        lambda listener: with_pool(listener, by_exhausted_pool),
        f"became free within {SHORT:g} s",
        "all 1 are in use",
        "a larger max_size",
    ),
    "connect= returns None": Message(
        lambda listener: connecting(listener, lambda _: None), "not a fresh", "NoneType"
    ),
    "connect= returns a coroutine": Message(
        lambda listener: connecting(listener, lambda _: asyncpg.create_pool), "not a fresh", "type"
    ),
    "connect= returns a transaction": Message(
        lambda listener: connecting(listener, begun), "LISTEN has no effect", "in a transaction"
    ),
}

OF_SERVERS: dict[str, Message] = {
    "no server": Message(
        lambda _: starting(
            Listener(f"postgresql://joe@127.0.0.1:{dead_port()}/db", start_timeout=scaled(0.1))
        ),
        "not connected",
        r"joe@127\.0\.0\.1:\d+/db",
    ),
    "no such database": Message(
        lambda listener: starting(Listener(other_database(listener))), "does not exist", '"nope"'
    ),
    "no such role": Message(
        lambda listener: starting(Notifier(other_role(listener), start_timeout=scaled(5.0))),
        "does not exist|authentication failed",
        "nope@",
    ),
}

# One dict would be too large for pyright to infer the types of its functions
MESSAGES = {
    **OF_CONSTRUCTORS,
    **OF_DSNS,
    **OF_HANDLERS,
    **OF_NAMES,
    **OF_PAYLOADS,
    **OF_CHANNELS,
    **OF_LIFE,
    **OF_CONNECTIONS,
    **OF_SERVERS,
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(pg_server: Any) -> AsyncIterator[Listener]:
    """One listener for all mistakes: none of them may end it."""
    async with Listener(pg_server.dsn) as listener:
        _dsns[listener] = pg_server.dsn
        yield listener
        assert listener.is_connected
    _dsns.clear()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mistake", MESSAGES)
async def test_each_mistake_is_told_with_its_value_and_remedy(
    running: Listener, mistake: str
) -> None:
    """A message says two at least of what is wrong, what was given and what to do; no secret."""
    message = MESSAGES[mistake]
    possible = message.problem, message.value, message.remedy
    parts = [part for part in possible if part is not None]
    assert len(parts) >= 2
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the text is what counts
        await made(message.mistake, running)
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    for part in parts:
        assert re.search(part, text), text
    assert NOT_SHOWN not in text
