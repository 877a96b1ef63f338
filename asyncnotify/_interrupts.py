"""What a signal handler raises in the middle of a function, which is not the function's own."""

from __future__ import annotations

import inspect
import json.decoder
import signal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS: Final = {int(number) for number in signal.valid_signals()}
_OF_JSON: Final[dict[str, Any]] = json.decoder.__dict__
"""Of the module whose functions fail most often. To look at each would take 2 us."""

_ARGUMENTS: Final = 2
"""What a signal handler is called with: the number of the signal, and the frame."""


def is_interrupt(error: BaseException) -> bool:
    """
    Return whether an exception that passed through the caller came from a signal handler.

    Ctrl-C does, and so do the time limits that Celery and rq set for jobs. Such an exception says
    nothing about the function that it interrupts; the code that has set the signal expects it.
    KeyboardInterrupt and SystemExit count wherever they are raised.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    inner = error.__traceback__ and error.__traceback__.tb_next  # the first is the caller itself
    while inner is not None:
        frame = inner.tb_frame
        code = frame.f_code
        takes_two = code.co_argcount >= _ARGUMENTS or code.co_flags & inspect.CO_VARARGS
        if takes_two and frame.f_globals is not _OF_JSON and _is_handler(frame):
            return True
        inner = inner.tb_next
    return False


def _is_handler(frame: FrameType) -> bool:
    """Return whether a function was called with a signal and the frame before, or handles one."""
    values = [*frame.f_locals.values()]
    for value in values:
        if type(value) is tuple:  # of a handler that takes ``*args``
            values = [*values, *value]
    signals = [value for value in values if isinstance(value, int) and value in _SIGNALS]
    if not signals:
        return False
    before = frame.f_back
    return any(value is before for value in values) or any(
        _code_of(signal.getsignal(number)) is frame.f_code for number in signals
    )


def _code_of(handler: object) -> object:
    """Return the code of a handler that is a function or a method."""
    return getattr(getattr(handler, "__func__", handler), "__code__", None)
