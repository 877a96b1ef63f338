"""What is installed of a Table, beside what should be."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class TriggerState(StrEnum):
    """How what is installed differs from what should be."""

    FINE = "fine"
    """Everything is there, as this Table makes it."""
    OUTDATED = "outdated"
    """
    The function, or a trigger, is another one than this Table makes.

    Also if the table has changed: a column that the function reads is gone, or has a type that its
    condition does not take, and every change is told as "read again"; or a column has a type whose
    values are written as settings of the session say, and the function was not made for that; or it
    reads a generated column of which its triggers may see no value.
    """
    DISABLED = "disabled"
    """A trigger is there, and switched off by ``ALTER TABLE … DISABLE TRIGGER``, or, but on
    replicas, by ``ENABLE REPLICA TRIGGER``."""
    UNCOVERED = "uncovered"
    """
    A partition or a child has no trigger: what is written straight into it is not told.

    Also the table itself, if it is a partition or a child of another one, and its triggers are of
    statements: what is written through its parent is not told. ``level="row"`` covers it.
    """
    STRAY = "stray"
    """A table that is no longer part of this one, detached or renamed, still has its triggers."""
    FOREIGN = "foreign"
    """A foreign table, and it can have triggers with ``level="row"`` only: what is written straight
    into it is not told, and the server refuses each write through its parent that reaches it."""
    MISSING = "missing"
    """The function, or a trigger of the table itself, is not there."""


_FROM_WORST = (
    TriggerState.MISSING,
    TriggerState.UNCOVERED,
    TriggerState.STRAY,
    TriggerState.DISABLED,
    TriggerState.OUTDATED,
)


@dataclass(frozen=True, slots=True)
class Status:
    """
    What is installed of a Table.

    Attributes:
        function: The state of the function: fine, outdated or missing.
        tables: The state of the triggers of the table, and of each of its partitions and children,
            by name with the schema, quoted as in SQL; and that of other tables that still have such
            triggers. ``install()`` makes all of them fine, except foreign tables.
    """

    function: TriggerState
    tables: Mapping[str, TriggerState]

    @property
    def state(self) -> TriggerState:
        """The worst of all; a foreign table counts as fine."""
        found = {self.function, *self.tables.values()}
        return next((state for state in _FROM_WORST if state in found), TriggerState.FINE)

    @property
    def is_fine(self) -> bool:
        """Whether all is as this Table makes it."""
        return self.state is TriggerState.FINE

    def having(self, state: TriggerState) -> tuple[str, ...]:
        """Return the tables in a state. Raises nothing."""
        return tuple(name for name, has in self.tables.items() if has is state)
