"""Notes on exceptions that say how much was done before them."""

from __future__ import annotations

import copy
import pickle

from asyncnotify._notes import note_count, noted_count


def test_the_last_note_with_a_number_counts() -> None:
    """Other notes do not, nor those of an earlier call; people read a plain text."""
    error = ValueError("the file ends here")
    assert noted_count(error) == 0
    note_count(error, 2, "events before it have been appended")
    note_count(error, 3, "events before it have been appended")
    error.add_note("7 lines were read")
    assert noted_count(error) == 3
    assert error.__notes__[1] == "3 events before it have been appended"


def test_a_note_keeps_its_number_in_a_copy_and_in_a_pickle() -> None:
    """As an exception goes to another task or process, its notes go along."""
    error = ValueError("the file ends here")
    note_count(error, 3, "events before it have been appended")
    for found in (copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - its own
        assert noted_count(found) == 3
        assert found.__notes__ == error.__notes__
