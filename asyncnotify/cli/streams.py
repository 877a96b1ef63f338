"""The three standard streams, of which a program may be started without some."""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["open_missing_streams"]

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing_streams() -> None:
    """
    Let the streams that are closed lead nowhere, as after ``>&-``.

    Otherwise the next socket would get the number of one: results would be written to the server.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - a number, and open to the end
