"""The listeners that other parts start for themselves, which are to be as their users say."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import Keepalive, Listener
from asyncnotify.lock import Locks
from asyncnotify.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DSN: Final = "postgresql://joe@db/shop"
OWNERS: Final[dict[str, Callable[..., Any]]] = {"Log": partial(Log, "orders"), "Locks": Locks}


def backoff() -> Iterator[float]:
    """Return none that is the default one."""
    yield 1.0


VALUES: Final[dict[str, object]] = {
    "backoff": backoff,
    "connect_timeout": 71.0,
    "keepalive": Keepalive(idle=72),
    "operation_timeout": 73.0,
}
OF_THE_OWNER: Final = {"connect", "start_timeout", "close_timeout"}
"""Arguments of Listener whose meaning for the owner is another one; ``connect=`` excludes a DSN."""


@pytest.mark.parametrize("owner", OWNERS)
def test_what_a_listener_takes_too_reaches_it(owner: str) -> None:
    """Else one half of a log or a lock would connect within its timeout, and the other never."""
    new = OWNERS[owner]
    names = inspect.signature(new).parameters.keys() & inspect.signature(Listener).parameters.keys()
    names -= {"dsn", "connect_kwargs", *OF_THE_OWNER}
    assert names <= VALUES.keys()
    assert "connect_timeout" in names
    given = {name: VALUES[name] for name in names}
    made = new(DSN, **given, ssl="require")
    new_listener = made._options.new_listener  # noqa: SLF001 - what it does is not to be seen
    assert isinstance(new_listener(), Listener)
    passed = dict(new_listener.keywords)
    assert [*passed.pop("backoff")()] == [0.0, *backoff()]  # its first attempt is the owner's, too
    del given["backoff"]
    assert passed.items() >= {**given, "ssl": "require"}.items()


async def test_a_function_that_connects_reaches_it_too() -> None:
    """It is the same one: what it returns is what the listener listens on."""

    async def connect() -> Any:
        raise NotImplementedError

    for new in OWNERS.values():
        made = new(connect=connect)
        assert made._options.new_listener.keywords["connect"] is connect  # noqa: SLF001 - as above
