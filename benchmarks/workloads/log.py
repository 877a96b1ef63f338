"""The durable log beside queues in tables: pgmq, pgqueuer, procrastinate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.queues import set_up
from benchmarks.workloads import log_append, log_consume, log_growth, log_latency, log_pinned

if TYPE_CHECKING:
    from benchmarks.environment import Environment
    from benchmarks.results import Section


async def measure(environment: Environment) -> list[Section]:
    """Measure on one server of its own that waits for the disk, all with the same settings."""
    sections: list[Section] = []
    async with set_up(environment) as bench:
        for part in (log_append, log_consume, log_pinned, log_latency, log_growth):
            sections += await part.measure(bench)
    return sections
