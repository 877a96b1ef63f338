"""On which loop, tasks and clock chaos runs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["add_variants", "loop_factory"]


def add_variants(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a variant."""
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    parser.add_argument(
        "--eager",
        action="store_true",
        help="begin tasks at once, by asyncio.eager_task_factory (Python 3.12 and newer)",
    )
    parser.add_argument(
        "--stepped-clock",
        action="store_true",
        help="step the wall clock by minutes, back and forth; needs libfaketime",
    )


def loop_factory(options: argparse.Namespace) -> Callable[[], asyncio.AbstractEventLoop]:
    """
    Return what makes the event loop.

    Raises:
        SystemExit: This Python has no eager tasks, or uvloop none with this Python.
    """
    needed = (3, 14) if options.uvloop else (3, 12)  # uvloop gives the factory an argument more
    if options.eager and sys.version_info < needed:
        message = f"--eager needs Python {needed[0]}.{needed[1]} or newer here"
        raise SystemExit(message)

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = _new_uvloop() if options.uvloop else asyncio.new_event_loop()
        if options.eager:
            loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - see above
        return loop

    return new_loop


def _new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
