"""Peers take turns: A B C, A B C, …, so that what changes on the machine changes for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.launcher import PeerError
from benchmarks.results import Series

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.results import Figures


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    One peer under one workload.

    Attributes:
        name: What stands in the table.
        run: Measures once.
        missing: Why it cannot run at all; empty if it can.
    """

    name: str
    run: Callable[[], Awaitable[Figures]]
    missing: str = ""


async def take_turns(
    measurements: Sequence[Measurement], rounds: int, progress: Callable[[str], None]
) -> list[Series]:
    """Measure each measurement once a round. One that fails keeps its place in the table only."""
    series = [Series(one.name, trouble=one.missing) for one in measurements]
    for number in range(1, rounds + 1):
        for measurement, measured in zip(measurements, series, strict=True):
            if measured.trouble:
                continue
            progress(f"round {number}/{rounds}: {measurement.name}")
            try:
                measured.rounds.append(await measurement.run())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this peer's row
                measured.rounds.append(None)
                known = isinstance(error, PeerError)
                measured.trouble = str(error) if known else f"{type(error).__name__}: {error}"
    return series
