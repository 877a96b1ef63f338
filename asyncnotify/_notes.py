"""Notes on exceptions that say how much was done before them: for people, and for telemetry."""

from __future__ import annotations

from typing import Self


class CountNote(str):
    """
    A note that begins with a number.

    Attributes:
        number: That number.
    """

    __slots__ = ("number",)

    number: int

    def __new__(cls, text: str, number: int = 0) -> Self:
        """Return the note; a copy gets its number by its attribute."""
        note = super().__new__(cls, text)
        note.number = number
        return note


def note_count(error: BaseException, count: int, rest: str) -> None:
    """Note how many came before an error: ``rest`` says how many of what."""
    error.add_note(CountNote(f"{count} {rest}", count))


def noted_count(error: BaseException) -> int:
    """Return the number of the last such note; 0 if there is none."""
    counts = [one.number for one in getattr(error, "__notes__", ()) if isinstance(one, CountNote)]
    return counts[-1] if counts else 0
