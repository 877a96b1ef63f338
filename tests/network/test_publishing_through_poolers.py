"""Publishing through a pooler that other programs use as well: what returned has arrived, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from asyncnotify import Listener, Notifier
from asyncnotify._asyncpg.publishing import PublishingSession
from asyncnotify._asyncpg.session import ListeningSession
from tests.network.arrivals import CHANNEL, OTHER_CHANNEL
from tests.network.observed_listener import WAIT_LIMIT
from tests.network.other_programs import other_programs, settings_of
from tests.network.senders import SENDERS, STATEMENTS, sending_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncnotify.testing.server import PostgresServer
    from tests.network.arrivals import Arrivals
    from tests.network.conftest import NewPooler
    from tests.network.other_programs import OtherPrograms
    from tests.network.senders import Send
    from tests.support.pgbouncer import PgBouncer, PoolMode

    Connection = asyncpg.Connection[asyncpg.Record]

MODES: Final[tuple[PoolMode, ...]] = ("session", "transaction", "statement")
CASES: Final = [
    *((sender, mode) for sender in SENDERS for mode in MODES if mode != "statement"),
    *((sender, "statement") for sender in STATEMENTS),
]
ROUNDS: Final = [
    pytest.param(15, id="quick"),
    pytest.param(5_000, id="soak", marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
]
UNTRANSLATABLE: Final = "日本"


async def outcomes_of(send: Send, payloads: list[str]) -> dict[str, Exception | None]:
    """Send one after the other; return what became of each call."""
    outcomes: dict[str, Exception | None] = {}
    for payload in payloads:
        try:
            await send(payload)
        except Exception as error:  # noqa: BLE001 - it is what is tested
            outcomes[payload] = error
        else:
            outcomes[payload] = None
    return outcomes


@asynccontextmanager
async def working(others: OtherPrograms) -> AsyncGenerator[None]:
    """Let the others store, so that nobody knows who gets which session next."""
    work = asyncio.create_task(others.work())
    yield
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def check(arrivals: Arrivals, others: OtherPrograms, returned: list[str]) -> None:
    """Check that what returned arrived once and nothing else did, and that nothing is mixed up."""
    arrived = await arrivals.complete()
    assert await others.stored_for_others() == 0
    assert not await others.meet_ours()
    assert Counter(arrived) == Counter((CHANNEL, payload) for payload in returned)


@pytest.fixture
def pooler(request: pytest.FixtureRequest, new_pooler: NewPooler) -> PgBouncer:
    """A pooler in one mode, which is transaction mode unless the test asks for others."""
    mode: PoolMode = getattr(request, "param", "transaction")
    return new_pooler(pool_mode=mode, settings=settings_of(mode))


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(("sender", "pooler"), CASES, indirect=["pooler"])
async def test_r47_what_returned_has_arrived_however_it_was_sent(
    pooler: PgBouncer, pooled_server: PostgresServer, arrivals: Arrivals, sender: str, rounds: int
) -> None:
    """Every call succeeds and arrives, once, and no program runs a statement of another."""
    async with (
        SENDERS[sender](pooler.dsn, pooled_server.dsn) as send,
        other_programs(pooler, arrivals.server) as others,
    ):
        await others.arrive()
        outcomes = await outcomes_of(send, [f"while they idle {n}" for n in range(rounds)])
        async with working(others):
            outcomes |= await outcomes_of(send, [f"while they work {n}" for n in range(rounds)])
        assert [error for error in outcomes.values() if error] == []
        await check(arrivals, others, list(outcomes))


async def test_r47_each_connection_is_judged_anew(
    pooler: PgBouncer, pooled_server: PostgresServer, arrivals: Arrivals
) -> None:
    """Where a pooler has taken the place of the server, the next connection is not prepared on."""
    places = [pooled_server.dsn]
    opened: list[Connection] = []

    async def connect() -> Connection:
        opened.append(await asyncpg.connect(places.pop() if places else pooler.dsn))
        return opened[-1]

    async with (
        Notifier(connect=connect) as notifier,
        other_programs(pooler, arrivals.server) as others,
    ):
        await notifier.notify(CHANNEL, "at the server")
        assert await opened[0].fetchval("SELECT count(*) FROM pg_prepared_statements") > 0
        opened[0].terminate()
        await notifier.notify(CHANNEL, "through the pooler", retry=True)
        await others.arrive()
        outcomes = await outcomes_of(sending_by(notifier), [str(n) for n in range(10)])
        assert [error for error in outcomes.values() if error] == []
        await check(arrivals, others, ["at the server", "through the pooler", *outcomes])


@pytest.mark.parametrize("pooler", ["statement"], indirect=True)
@pytest.mark.parametrize("sender", ["asyncpg in a transaction", "psycopg in a transaction"])
async def test_r47_a_transaction_in_a_pool_of_statements_is_refused(
    pooler: PgBouncer, pooled_server: PostgresServer, arrivals: Arrivals, sender: str
) -> None:
    """The pooler ends the connection that begins one: every call raises, and nothing arrives."""
    async with (
        SENDERS[sender](pooler.dsn, pooled_server.dsn) as send,
        other_programs(pooler, arrivals.server) as others,
    ):
        await others.arrive()
        outcomes = await outcomes_of(send, [str(n) for n in range(10)])
        assert {type(error).__module__ for error in outcomes.values()} <= {
            "asyncpg.exceptions",
            "psycopg",
            "psycopg.errors",
        }
        await check(arrivals, others, [])


@pytest.mark.parametrize("pooler", MODES, indirect=True)
@pytest.mark.parametrize("connects_by", ["dsn", "pool"])
@pytest.mark.parametrize("kind", ["many", "many on one"])
async def test_r47_batches_arrive_whole_and_in_order(
    pooler: PgBouncer, arrivals: Arrivals, connects_by: str, kind: str
) -> None:
    """notify_many(), and calls that meet, on one channel and on two."""
    channels = [CHANNEL, OTHER_CHANNEL if kind == "many" else CHANNEL]
    pairs = [(channels[n % 2], f"{n} Grüße, O'Reilly \\ {n}") for n in range(3_000)]
    async with (
        notifier_by(connects_by, pooler.dsn) as notifier,
        other_programs(pooler, arrivals.server, kind) as others,
    ):
        await others.arrive()
        async with working(others):
            assert await notifier.notify_many(pairs[:2_000]) == 2_000
            await asyncio.gather(*(notifier.notify(*pair) for pair in pairs[2_000:]))
        arrived = await arrivals.complete()
        for channel in channels:  # each has a task of its own
            assert [p for c, p in arrived if c == channel] == [p for c, p in pairs if c == channel]
        assert await others.stored_for_others() == 0


@asynccontextmanager
async def notifier_by(connects_by: str, dsn: str) -> AsyncGenerator[Notifier]:
    """Have a notifier that connects, or borrows, through the pooler."""
    async with contextlib.AsyncExitStack() as stack:
        if connects_by == "pool":
            pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1))
            yield await stack.enter_async_context(Notifier(pool=pool))
        else:
            yield await stack.enter_async_context(Notifier(dsn))


async def test_r47_no_statement_of_another_runs_where_the_pid_deceives(
    pooler: PgBouncer, arrivals: Arrivals
) -> None:
    """A pooler that passes on the backend's own pid costs errors, and nothing else."""
    session = PublishingSession(await asyncpg.connect(pooler.dsn), timeout=WAIT_LIMIT)
    session.prepare_statements()  # as if the pid had been the one told at connecting

    async def send(payload: str) -> None:
        await session.notify(CHANNEL, payload)

    async with other_programs(pooler, arrivals.server) as others:
        await others.arrive()
        outcomes = await outcomes_of(send, [str(n) for n in range(30)])
        async with working(others):
            outcomes |= await outcomes_of(send, [str(n) for n in range(30, 60)])
        errors = [error for error in outcomes.values() if error]
        assert {type(error) for error in errors} == {asyncpg.InvalidSQLStatementNameError}
        assert await others.stored_for_others() == 0
        returned = [(CHANNEL, payload) for payload, error in outcomes.items() if error is None]
        assert await arrivals.complete() == returned
    session.terminate()


async def test_r47_a_listener_that_lost_its_session_runs_no_statement_of_another(
    pooler: PgBouncer, server: Connection
) -> None:
    """What it asks the server is never run under a name that other programs have as well."""
    session = ListeningSession(
        await asyncpg.connect(pooler.dsn),
        on_notification=lambda pid, channel, payload: None,
        on_lost=lambda: None,
        last_contact=lambda: 0.0,
        timeout=WAIT_LIMIT,
    )
    async with other_programs(pooler, server, "none") as others:
        await others.arrive()
        before = await others.stored()
        for _ in range(6):
            with contextlib.suppress(asyncpg.PostgresError):
                assert await session.missing([CHANNEL]) == {CHANNEL}
            with contextlib.suppress(asyncpg.PostgresError):
                assert await session.queue_usage(timeout=WAIT_LIMIT) < 1
            with contextlib.suppress(asyncpg.PostgresError):
                await session.queue_holders(timeout=WAIT_LIMIT)
        assert await others.stored() == before
    session.terminate()


@pytest.mark.parametrize("connects_by", ["dsn", "pool"])
async def test_r47_one_that_is_refused_takes_no_other_with_it(
    pooler: PgBouncer, pooled_server: PostgresServer, server: Connection, connects_by: str
) -> None:
    """A batch is refused as a whole; of calls that met, each then learns its own outcome."""
    await server.execute(
        "CREATE DATABASE latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    payloads = ["é", UNTRANSLATABLE, "è"]
    try:
        async with (
            Listener(pooled_server.dsn_for("latin1")) as listener,
            listener.stream(CHANNEL) as stream,
            notifier_by(connects_by, pooler.dsn_for("latin1")) as notifier,
        ):
            with pytest.raises(asyncpg.UntranslatableCharacterError):
                await notifier.notify_many((CHANNEL, payload) for payload in payloads)
            outcomes = await asyncio.gather(
                *(notifier.notify(CHANNEL, payload) for payload in payloads),
                return_exceptions=True,
            )
            kinds = [type(outcome) for outcome in outcomes]
            assert kinds == [type(None), asyncpg.UntranslatableCharacterError, type(None)]
            assert [(await anext(stream)).payload for _ in range(2)] == ["é", "è"]
    finally:
        pooler.stop()
        await server.execute("DROP DATABASE latin1 WITH (FORCE)")
