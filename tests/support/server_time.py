"""The time that asyncnotify gives a server by default: a busy machine is not a dead server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from asyncnotify import BlockingListener, BlockingNotifier, Listener, Notifier
from asyncnotify.log import BlockingLog, Log
from tests.support.machine import scaled

if TYPE_CHECKING:
    import pytest

OPTIONS: Final = {
    f"{name}_timeout" for name in ("connect", "heartbeat", "operation", "retry", "start")
}
"""Options in whose time a server has to answer: be it once more, when the fault is over."""

_CLASSES: Final = (Listener, BlockingListener, Notifier, BlockingNotifier, Log, BlockingLog)
_NO_SERVER: Final = {"docs", "package", "properties", "typing", "unit"}


def has_server(parts: tuple[str, ...]) -> bool:
    """Return whether the tests of a module talk to servers, and say nothing of the defaults."""
    return len(parts) > 1 and parts[0] not in _NO_SERVER


def scale_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them be scaled, as what a test gives itself."""
    for cls in _CLASSES:
        constructor: Any = vars(cls)["__init__"]
        defaults = cast("dict[str, object]", constructor.__kwdefaults__)
        for name in OPTIONS & defaults.keys():
            seconds = defaults[name]
            if isinstance(seconds, float):
                monkeypatch.setitem(defaults, name, scaled(seconds))
