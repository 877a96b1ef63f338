"""What a test may wait for in the output of a program."""

from __future__ import annotations

import re
from typing import Final

_CHANCE: Final = re.compile(r"[0-9a-f]*")
"""What a port, a pid, a time, an address or the random name of a database may contain."""


def check_expected(*texts: str) -> None:
    """Raise ValueError if a line may contain one of these texts by chance."""
    for text in texts:
        if _CHANCE.fullmatch(text):
            msg = f"{text!r} may stand in a port, a pid or a random name: expect more of the line"
            raise ValueError(msg)
