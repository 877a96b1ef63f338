"""
Measures asyncnotify beside its peers: ``python -m benchmarks --help``.

Every peer runs the same workloads in the same run, on the same server, in a process of its own, and
they take turns. What counts are the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from benchmarks import table
from benchmarks.charts import draw
from benchmarks.document import refresh
from benchmarks.environment import set_up
from benchmarks.programs import succeeds
from benchmarks.results import Report, read
from benchmarks.workloads import (
    burst,
    fanout,
    growth,
    idle,
    latency,
    listening,
    log,
    million,
    publishing,
    recovery,
    telemetry,
    triggers,
    typed,
    writers,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.environment import Environment
    from benchmarks.results import Section

    Workload = Callable[[Environment], Awaitable[list[Section]]]

WORKLOADS: Final[dict[str, Workload]] = {
    "burst": burst.measure,
    "loops": burst.measure_loops,
    "typed": typed.measure,
    "telemetry": telemetry.measure,
    "fanout": fanout.measure,
    "million": million.measure,
    "latency": latency.measure,
    "recovery": recovery.measure,
    "listen": listening.measure,
    "idle": idle.measure,
    "growth": growth.measure,
    "publishing": publishing.measure,
    "writers": writers.measure,
    "log": log.measure,
    "triggers": triggers.measure,
}
HERE: Final = Path(__file__).parent
DOCUMENT: Final = Path("docs", "performance.md")
ROUNDS, QUICK_ROUNDS = 5, 3
WIDTH = 140  # where there is no terminal


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; or all"
    )
    parser.add_argument("--quick", action="store_true", help="small numbers: to try it")
    parser.add_argument(
        "--large",
        action="store_true",
        help="also 10,000,000 events of the log, and a million rows of a trigger: it takes long",
    )
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}, {QUICK_ROUNDS} if quick")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="another interpreter, with asyncpg, anyio and uvloop, for `loops`; may be repeated",
    )
    parser.add_argument(
        "--results", type=Path, default=HERE / "results" / "latest.json", help="the JSON file"
    )
    parser.add_argument(
        "--update", action="store_true", help="keep what the JSON file has of other workloads"
    )
    parser.add_argument("--again", action="store_true", help="show the JSON file; measure nothing")
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"draw the charts beside {DOCUMENT}, and put the tables into it",
    )
    options = parser.parse_args(given)
    if unknown := set(options.workloads) - WORKLOADS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Measure, show, write, draw."""
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if options.again:
        report = read(options.results)
        for section in report.sections:
            table.show_section(console, section)
    else:
        before = read(options.results).sections if options.update else []
        report = asyncio.run(measure(options, console, before))
    claims = [claim for section in report.sections for claim in section.claims]
    table.show_claims(console, claims)
    if options.publish:
        draw(report, DOCUMENT.with_suffix(""))
        refresh(DOCUMENT, report)
    else:
        draw(report, options.results.parent / "charts")


async def measure(
    options: argparse.Namespace, console: Console, before: Sequence[Section]
) -> Report:
    """Measure each workload; after each one the file holds what was measured so far."""
    names = options.workloads or list(WORKLOADS)
    report = Report(circumstances(), list(before))
    with console.status("") as status:
        entering = set_up(
            rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
            quick=options.quick,
            large=options.large,
            progress=status.update,
            pythons={version_of(path): path for path in options.python},
        )
        async with entering as environment:
            report.circumstances = {
                **report.circumstances,
                "PostgreSQL": environment.server.version,
            }
            for name in names:
                began = time.monotonic()
                for section in await WORKLOADS[name](environment):
                    report.put(section)
                    table.show_section(console, section)
                console.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
                report.write(options.results)
    return report


def circumstances() -> dict[str, str]:
    """Return on what machine this is measured."""
    return {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(cores())),
    }


def cores() -> set[int]:
    """Return the cores that we may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def version_of(interpreter: str) -> str:
    """Return the version of an interpreter, such as 3.13."""
    program = "import asyncpg, sys; print('%d.%d' % sys.version_info[:2])"
    ran, said = succeeds((interpreter, "-c", program))
    return said if ran else interpreter


if __name__ == "__main__":
    main()
