from __future__ import annotations

import asyncpg
import pytest

from asyncnotify._asyncpg.failures import is_permanent, needs_repair


@pytest.mark.parametrize(
    ("text", "permanent"),
    [
        ("no such user: joe", True),
        ("no such database: app", True),
        ("unsupported startup parameter: tcp_keepalives_idle", True),
        ("SASL authentication failed", True),
        ('database "app" does not exist', True),
        ("server conn crashed?", False),
        ("query_wait_timeout", False),
    ],
)
def test_r12_what_pgbouncer_refuses_is_told_from_what_passes(text: str, *, permanent: bool) -> None:
    """It gives 08P01 for everything; its words alone say whether trying again may help."""
    error = asyncpg.ProtocolViolationError(text)
    assert is_permanent(error) is permanent
    assert needs_repair(error) is permanent


@pytest.mark.parametrize(
    ("error", "permanent", "repair"),
    [
        (asyncpg.InvalidPasswordError(""), True, True),
        (asyncpg.ObjectNotInPrerequisiteStateError(""), False, True),
        (asyncpg.CannotConnectNowError(""), False, False),
        (ConnectionRefusedError(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_some_of_what_may_pass_needs_repair_all_the_same(
    error: Exception, *, permanent: bool, repair: bool
) -> None:
    """A database that allows no connections is tried again at the start, but slowly."""
    assert (is_permanent(error), needs_repair(error)) == (permanent, repair)
