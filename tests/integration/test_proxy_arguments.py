"""A fault that could never happen is refused when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable


def unchecked(value: Any) -> Any:
    """Hide a type that is wrong from type checkers."""
    return value


WRONG: Final[dict[str, tuple[Callable[[Any], object], type[Exception], str]]] = {
    "host": (lambda _: FaultProxy(unchecked(5), 5432), TypeError, "target_host must be a str"),
    "port": (
        lambda _: FaultProxy("db", unchecked("5432")),
        TypeError,
        "target_port must be a number",
    ),
    "large port": (lambda _: FaultProxy("db", 65_536), ValueError, "from 1 to 65535"),
    "own port": (lambda _: FaultProxy("db", 5432, port=-1), ValueError, "from 0 to 65535"),
    "DSN": (lambda _: FaultProxy.for_dsn(unchecked(None)), TypeError, "dsn must be a str"),
    "black hole": (
        lambda proxy: proxy.black_hole("server"),
        ValueError,
        "'to_server', 'to_client'",
    ),
    "pause": (lambda proxy: proxy.pause("x"), ValueError, "direction must be one of"),
    "trickle": (lambda proxy: proxy.trickle(1, 0.0, "x"), ValueError, "direction must be one of"),
    "cut after": (lambda proxy: proxy.cut_after(1, "both"), ValueError, "not 'both'"),
    "cut on a str": (lambda proxy: proxy.cut_on("LISTEN"), TypeError, "must be bytes"),
    "answer": (lambda proxy: proxy.cut_on(b"x", answer="y"), TypeError, "must be bytes"),
    "detect": (lambda proxy: proxy.detect("LISTEN"), TypeError, "must be bytes"),
    "drop": (lambda proxy: proxy.drop_new("rst"), ValueError, "'reset' or 'fin', not 'rst'"),
    "garbage": (lambda proxy: proxy.garbage("x"), TypeError, "data must be bytes"),
    "hba": (lambda _: PostgresServer(hba="host all"), TypeError, "hba must be a list of lines"),
    "settings": (
        lambda _: PostgresServer(settings=unchecked(5)),
        TypeError,
        "settings must be a dict",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_told_at_once(wrong: str) -> None:
    """Else a test would pass, because its fault has not happened."""
    call, error, told = WRONG[wrong]
    with pytest.raises(error, match=told):
        call(FaultProxy("127.0.0.1", 5432))
