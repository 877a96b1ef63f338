"""Triggers: what a statement costs that tells of its rows, beside one by hand and none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncnotify.log import Log
from asyncnotify.triggers import Table
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    import asyncpg

    from benchmarks.environment import Environment
    from benchmarks.results import Figures

    Connection = asyncpg.Connection[Any]

_TABLE: Final = "bench_rows"
_CHANNEL: Final = "bench_rows"
_FENCE: Final = "bench_fence"
_LOG: Final = "bench_triggers"
_NONE: Final = "no trigger"
_BY_HAND: Final = "row trigger by hand"
_STATEMENT_BY_HAND: Final = "statement trigger by hand"
_OURS: Final = "statement level"
_MICRO, _NANO = 1e6, 1e-9
_ONE: Final = 1
_MILLION: Final = 1_000_000
_FENCE_TIME = 60.0
_WARM_UP: Final = 20
"""Statements of one row before it counts: a session compiles each function first."""

_TURNS: Final = 8
"""Rounds for one: short ones, as what is compared is a few µs, and the machine's pace changes."""

_ONE_ROW_LIMIT, _MILLION_LIMIT = 1.1, 1.6

_MAKE: Final = f"""
    DROP TABLE IF EXISTS {_TABLE} CASCADE;
    CREATE TABLE {_TABLE} (id int8 PRIMARY KEY, state text, amount int, note text);
"""
_ROW: Final = "'new', 1, repeat('x', 60)"
_FILL: Final = f"INSERT INTO {_TABLE} SELECT n, {_ROW} FROM generate_series(1, $1::int8) AS n"  # noqa: S608 - SQL of ours
_HAND_WRITTEN: Final = f"""
    CREATE OR REPLACE FUNCTION bench_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{_CHANNEL}', json_build_object(
            'op', lower(TG_OP), 'id', NEW.id, 'amount', NEW.amount)::text);
        RETURN NULL;
    END $$;
    CREATE TRIGGER by_hand AFTER INSERT OR UPDATE ON {_TABLE}
        FOR EACH ROW EXECUTE FUNCTION bench_by_hand();
"""
_STATEMENT_HAND_WRITTEN: Final = f"""
    CREATE OR REPLACE FUNCTION bench_statement_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        payload text;
    BEGIN
        SELECT json_build_object('op', lower(TG_OP), 'rows', json_agg(json_build_array(id, amount)))
        INTO payload FROM changed;
        PERFORM pg_notify('{_CHANNEL}', payload);
        RETURN NULL;
    END $$;
    CREATE TRIGGER on_insert AFTER INSERT ON {_TABLE} REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION bench_statement_by_hand();
    CREATE TRIGGER on_update AFTER UPDATE ON {_TABLE} REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION bench_statement_by_hand();
"""  # noqa: S608 - SQL of ours
_WRITTEN: Final = {_BY_HAND: _HAND_WRITTEN, _STATEMENT_BY_HAND: _STATEMENT_HAND_WRITTEN}
_SERIES: Final = "generate_series($1::int8 + 1, $1::int8 + $2::int8)"
_STATEMENTS: Final = {
    "INSERT": f"INSERT INTO {_TABLE} SELECT n, {_ROW} FROM {_SERIES} AS n",  # noqa: S608 - SQL of ours
    "UPDATE": f"UPDATE {_TABLE} SET amount = amount + 1 WHERE id > $1 AND id <= $1 + $2::int8",  # noqa: S608 - SQL of ours
}
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    _OURS: {},
    f"{_OURS}, watch= that changes": {"watch": "amount"},
    f"{_OURS}, watch= that stays": {"watch": "note"},
    f"{_OURS}, when=": {"when": "new.amount > 0"},
    "row level": {"level": "row"},
    'to="log"': {"to": "log", "log": _LOG},
}
_REMARK: Final = (
    "Statements are prepared, over a connection to the same machine. Commits count: of one"
    " transaction that all share, or of one each, and do not wait for the disk. The row trigger by"
    " hand sends one notification a row, with the same two columns; the statement trigger by hand"
    " sends all rows in one, which fails where they are many."
)


@dataclass(frozen=True, slots=True)
class _Load:
    """
    Statements of one kind.

    Attributes:
        rows: How many each changes.
        count: How many are timed.
        together: How many share a transaction.
    """

    kind: str
    rows: int
    count: int
    together: int

    @property
    def key(self) -> str:
        return f"triggers, {self._name}"

    @property
    def title(self) -> str:
        return f"Triggers: {self._name}, each statement"

    @property
    def _name(self) -> str:
        plural = "s" * (self.rows > 1)
        where = ", its own transaction" * (self.together == 1 < self.count)
        return f"{self.kind} of {self.rows:,} row{plural}{where}"

    @property
    def all(self) -> int:
        """How many statements there are, with those that are not timed."""
        return self.count + _WARM_UP * (self.rows == _ONE)

    @property
    def filled(self) -> int:
        """How many rows the table has before."""
        return self.rows * self.all if self.kind == "UPDATE" else 0


async def measure(environment: Environment) -> list[Section]:
    """Measure one row, a thousand, and a million in a large run."""
    async with Log(_LOG, environment.server.dsn) as log:
        await log.install()
    count = environment.sized(400, 100)
    loads = [
        _Load(kind, rows, number, together)
        for rows, number, together in ((_ONE, count, 1), (_ONE, count, count), (1_000, 10, 10))
        for kind in _STATEMENTS
    ]
    if environment.large:
        loads.append(_Load("UPDATE", _MILLION, 1, 1))
    try:
        return [await _by(environment, load) for load in loads]
    finally:
        await environment.sender.execute(f"DROP TABLE IF EXISTS {_TABLE}")


async def _by(environment: Environment, load: _Load) -> Section:
    run = functools.partial(_run, environment, load)
    measurements = [Measurement(name, functools.partial(run, name)) for name in _ways(load)]
    rounds = environment.rounds * (environment.sized(_TURNS, 1) if load.rows == _ONE else 1)
    section = Section(
        key=load.key,
        title=load.title,
        reference=_NONE,
        columns=(
            Column("cpu", "µs of the server's CPU", 1),
            Column("time", "µs until it returns", 1),
            Column("notifications", "notifications", 0),
        ),
        series=await take_turns(measurements, rounds, environment.progress),
        remark=_REMARK,
    )
    if load.rows == _ONE:
        for figure in ("cpu", "time"):
            text = f"{load.title}: {figure} of {_OURS}, times {_BY_HAND}"
            measured = section.ratio(_OURS, _BY_HAND, figure)
            section.claim(text, _ONE_ROW_LIMIT, measured, at_least=False)
    if load.rows == _MILLION:
        text = f"{load.title}: time of {_OURS}, times {_NONE}"
        section.claim(text, _MILLION_LIMIT, section.ratio(_OURS, _NONE, "time"), at_least=False)
    return section


def _ways(load: _Load) -> Sequence[str]:
    written = _WRITTEN if load.rows == _ONE else (_BY_HAND,)
    return (_NONE, *written, *_OPTIONS)


async def _run(environment: Environment, load: _Load, way: str) -> Figures:
    """Return what a statement costs on a new table, and how many notifications it sends."""
    connection = environment.sender
    await connection.execute(_MAKE)
    await connection.execute(_FILL, load.filled)
    if way in _WRITTEN:
        await connection.execute(_WRITTEN[way])
    elif way != _NONE:
        options: Any = {"channel": _CHANNEL, "key": "id", "payload": "amount", **_OPTIONS[way]}
        await Table(_TABLE, **options).install(connection)
    await connection.execute(f"VACUUM ANALYZE {_TABLE}")
    async with _arrivals(environment) as arrived:
        figures = await _timed(connection, load)
    return {**figures, "notifications": arrived.count / load.all}


async def _timed(connection: Connection, load: _Load) -> Figures:
    statement = await connection.prepare(_STATEMENTS[load.kind])
    for number in range(load.count, load.all):
        await statement.fetch(number * load.rows, load.rows)
    usage = Path(f"/proc/{connection.get_server_pid()}/schedstat")
    before, began = _processor_time(usage), time.perf_counter()
    for first in range(0, load.count, load.together):
        async with connection.transaction() if load.together > 1 else contextlib.nullcontext():
            for number in range(first, first + load.together):
                await statement.fetch(number * load.rows, load.rows)
    took, used = time.perf_counter() - began, _processor_time(usage) - before
    figures = {"time": took / load.count * _MICRO}
    if used:
        figures["cpu"] = used / load.count * _MICRO
    return figures


def _processor_time(usage: Path) -> float:
    """Return the seconds that a process has run; 0 where the system does not say."""
    return int(usage.read_text("ascii").split()[0]) * _NANO if usage.exists() else 0.0


class _Arrivals:
    """Counts notifications up to a fence."""

    def __init__(self) -> None:
        self.count = 0
        self._fenced = asyncio.Event()

    def arrived(self, *_: object) -> None:
        self.count += 1

    def fenced(self, *_: object) -> None:
        self._fenced.set()

    async def end(self) -> None:
        async with asyncio.timeout(_FENCE_TIME):
            await self._fenced.wait()


@contextlib.asynccontextmanager
async def _arrivals(environment: Environment) -> AsyncGenerator[_Arrivals]:
    """Count what arrives of all that is sent within the block."""
    listening, arrivals = environment.killer, _Arrivals()
    await listening.add_listener(_CHANNEL, arrivals.arrived)
    await listening.add_listener(_FENCE, arrivals.fenced)
    try:
        yield arrivals
        await environment.sender.execute(f"NOTIFY {_FENCE}")
        await arrivals.end()
    finally:
        await listening.remove_listener(_CHANNEL, arrivals.arrived)
        await listening.remove_listener(_FENCE, arrivals.fenced)
