"""Typed channels: what decoding costs on top of what the decoder itself takes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import programs
from benchmarks.results import Column, Section
from benchmarks.rounds import Measurement, take_turns
from benchmarks.workloads.burst import STREAM

if TYPE_CHECKING:
    from benchmarks.environment import Environment

_PAYLOAD = """format('{"number":%s,"name":"n%s"}', number, lpad(number::text, 8, '0'))"""
_JSON = "asyncnotify stream(Channel), json"
_MSGSPEC = "asyncnotify stream(Channel), msgspec"
_LIMIT = 1.1


async def measure(environment: Environment) -> list[Section]:
    """Measure the same stream with and without decoding."""
    count = environment.sized(100_000, 30_000)
    ours = programs.python("asyncnotify_burst")
    msgspec = programs.packaged("asyncnotify_burst", "msgspec")
    burst = functools.partial(environment.burst, ours, count, payload=_PAYLOAD)
    measurements = [
        Measurement(STREAM, functools.partial(burst, workload="stream")),
        Measurement(_JSON, functools.partial(burst, workload="typed", coder="json")),
        Measurement(
            _MSGSPEC, functools.partial(burst, workload="typed", coder="msgspec"), msgspec.missing
        ),
    ]
    section = Section(
        key="typed",
        title=f"Burst of {count:,} JSON payloads, decoded",
        reference=STREAM,
        columns=(
            Column("cpu", "µs CPU each"),
            Column("decoding", "of it the decoder by itself"),
        ),
        series=await take_turns(measurements, environment.rounds, environment.progress),
    )
    for name in (_JSON, _MSGSPEC):
        text = f"{name}: what it adds, as a multiple of the decoder by itself"
        section.claim(text, _LIMIT, _overhead(section, name), at_least=False)
    return [section]


def _overhead(section: Section, name: str) -> float | None:
    plain, typed = section.named(STREAM).median("cpu"), section.named(name).median("cpu")
    decoding = section.named(name).median("decoding")
    if plain is None or typed is None or not decoding:
        return None
    return (typed - plain) / decoding
