"""
Raising at each point at which a signal handler may raise.

CPython runs signal handlers where a function begins, where a loop goes round, and after a call,
but not after the call of a function written in Python, and not between other steps.
"""

from __future__ import annotations

import dis
import gc
import inspect
import signal
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

_MASK: Final = 3
"""Of the argument of RESUME: 0 at the beginning of a function, 1 behind a ``yield``."""
_ASYNC: Final = 2
_CALLS: Final = {"CALL", "CALL_KW", "CALL_FUNCTION_EX"}


class Alarm(Exception):  # noqa: N818 - it is no error
    """What the signal handler raises."""


def _ring(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
    raise Alarm


@cache
def _operations(code: CodeType) -> dict[int, dis.Instruction]:
    return {operation.offset: operation for operation in dis.get_instructions(code)}


class Interrupter:
    """
    Raises Alarm at one of the points that come up in some modules while it is entered.

    Args:
        number: Which of the points, from 0 on, counted over all times that it is entered.
        modules: The beginning of their names.
    """

    def __init__(self, number: int, *modules: str) -> None:
        self._left = number
        self._modules = modules
        self._before: dict[FrameType, str] = {}
        self._returned: FrameType | None = None  # the one that a function of Python returned to
        self._tracer: Any = None
        # Kept: what raises is forgotten by the interpreter while it runs
        self._kept = self._on_call, self._on_step

    @property
    def has_raised(self) -> bool:
        """Whether there was a point of this number."""
        return self._left < 0

    def __enter__(self) -> None:
        self._tracer = sys.gettrace()
        if not self.has_raised:
            gc.disable()  # what is raised in a __del__ that it runs would be ignored
            # Python 3.12 traces operations only where a frame asked for them before settrace()
            sys._getframe().f_trace_opcodes = True  # noqa: SLF001 - as inspect does
            sys.settrace(self._kept[0])

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Raise no more."""
        sys.settrace(self._tracer)
        gc.enable()
        self._before.clear()

    def _on_call(self, frame: FrameType, event: str, argument: object) -> Any:
        is_ours = str(frame.f_globals.get("__name__")).startswith(self._modules)
        if not is_ours or frame.f_code.co_name == "__del__":
            return None
        frame.f_trace = self._kept[1]  # before the next line: Python 3.13 has it so
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        begun = _operations(frame.f_code)[frame.f_lasti]
        if (begun.arg or 0) & _MASK < _ASYNC:
            self._before[frame] = begun.opname
        return self._kept[1]

    def _on_step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "return":
            called_by_c = frame.f_code.co_name.startswith("__")  # a slot of a class, as __call__
            self._returned = None if called_by_c else frame.f_back
            self._before.pop(frame, None)
        if event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = after = _operations(frame.f_code)[frame.f_lasti].opname
            of_python = self._returned is frame or after == "GET_AWAITABLE"  # of a coroutine
            self._returned = None
            if (before in _CALLS and not of_python) or before in {"JUMP_BACKWARD", "RESUME"}:
                self._point()
        return self._kept[1]

    def _point(self) -> None:
        self._left -= 1
        if self._left == -1:
            _ring(signal.SIGALRM, inspect.currentframe())


def each_point(*modules: str, most: int = 5_000) -> Iterator[Interrupter]:
    """Yield an Interrupter for each point, until one has found no point of its number."""
    for number in range(most):
        interrupter = Interrupter(number, *modules)
        yield interrupter
        if not interrupter.has_raised:
            return
    msg = f"more than {most} points"
    raise AssertionError(msg)
