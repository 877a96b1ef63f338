"""Objects that are made only to see whether their arguments are refused, and are never started."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
MadeT = TypeVar("MadeT")


def validated(make: Callable[P, MadeT], *arguments: P.args, **options: P.kwargs) -> MadeT:
    """
    Return what is made of these arguments; telemetry does not take it for an object of the program.

    Raises:
        Exception: What refuses the arguments.
    """
    return make(*arguments, **options)
