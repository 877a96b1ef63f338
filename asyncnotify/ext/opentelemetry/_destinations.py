"""How a channel is named where names have to be few: in names of spans, and in metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_NAMES: Final = 100
"""Channels that have a time series of their own, of one object that is instrumented."""

OTHER: Final = "{other}"
"""The template of the channels beyond these."""

_OURS: Final = ("asyncnotify.", "asyncnotify_")
"""How the channels begin on which a log wakes its readers, and services report."""

NAME: Final = "messaging.destination.name"
TEMPLATE: Final = "messaging.destination.template"


def is_ours(channel: str | None) -> bool:
    """Return whether what is sent there is the traffic of asyncnotify itself."""
    return channel is not None and channel.startswith(_OURS)


class Destinations:
    """
    Knows the channels there have been.

    Args:
        template: Returns the template of a channel that is one of many, such as ``user_{id}`` for
            ``user_42``; None for a channel that is one of few.
    """

    def __init__(self, template: Callable[[str], str | None] | None) -> None:
        self._template = template
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def of(self, channel: str) -> tuple[str, dict[str, str]]:
        """Return what stands in the name of a span, and the attributes of a metric."""
        found = self._known.get(channel)
        return self._new(channel) if found is None else found

    def _new(self, channel: str) -> tuple[str, dict[str, str]]:
        template = None if self._template is None else self._template(channel)
        if template is not None:
            return template, {TEMPLATE: template}
        if len(self._known) >= MOST_NAMES:
            return OTHER, {TEMPLATE: OTHER}
        self._known[channel] = channel, {NAME: channel}
        return self._known[channel]
