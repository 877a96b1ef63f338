"""The command ``doctor``: what is wrong, or will be, with its evidence and its cure."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from asyncnotify.cli.options import Dsn, JsonObject, seconds_option
from asyncnotify.cli.texts import about, examples

__all__ = ["ABOUT", "EXAMPLES", "doctor"]

ABOUT = about("""
Examine a server, and the path to it, for what makes notifications late, fail or vanish.

The doctor only reads. One check sends two notifications, on a channel with a random name, to
nobody else; --no-probe leaves it out. Each finding has its evidence and its cure.

Exit status 0: nothing worse than information. 1: an error. 3: no connection. 5: warnings. 6: a
check could not find out.
""")
EXAMPLES = examples(
    "asyncnotify doctor",
    "asyncnotify doctor --all --services asyncnotify.reports",
    "asyncnotify doctor --json | jq '.findings[].title'",
)


def doctor(
    *,
    dsn: Dsn = None,
    timeout: Annotated[float, seconds_option(at_least=0.1, of="Seconds for each check.")] = 5.0,
    probe: Annotated[bool, typer.Option(help="See if a notification arrives.")] = True,
    services: Annotated[
        str | None,
        typer.Option(
            metavar="CHANNEL",
            show_default=False,
            help="Ask the services that report on this channel who listens.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show the checks that found nothing, too.")
    ] = False,
    json: JsonObject = False,
) -> None:
    """Examine a server."""
    from asyncnotify.cli.running import run

    async def examine() -> int:
        from asyncnotify.doctor import diagnose

        report = await diagnose(dsn, timeout=timeout, probe=probe, services=services)
        if json:
            print(json_format.dumps(report.to_json(), indent=2), flush=True)
            return report.exit_status
        from rich.console import Console

        from asyncnotify.doctor.printing import print_report

        print_report(report, Console(highlight=False), everything=everything)
        return report.exit_status

    run(examine)
