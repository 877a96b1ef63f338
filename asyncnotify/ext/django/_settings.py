"""The setting ASYNCNOTIFY: which database is listened on, and how."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN: Final[Mapping[str, type]] = {"DATABASE": str, "LISTENER": dict}


def database_alias(given: str | None = None) -> str:
    """
    Return the alias of the database to listen on.

    Raises:
        ImproperlyConfigured: The setting ASYNCNOTIFY is wrong.
    """
    alias: str = given or _read().get("DATABASE", DEFAULT_DB_ALIAS)
    return alias


def listener_options() -> dict[str, Any]:
    """
    Return the arguments of Listener that the setting has.

    Raises:
        ImproperlyConfigured: The setting ASYNCNOTIFY is wrong.
    """
    return dict(_read().get("LISTENER", {}))


def _read() -> Mapping[str, Any]:
    found: object = getattr(settings, "ASYNCNOTIFY", {})
    if not isinstance(found, dict):
        msg = f"ASYNCNOTIFY must be a dict, not of type {type(found).__name__}"
        raise ImproperlyConfigured(msg)
    for name, value in found.items():
        _check(name, value)
    return found


def _check(name: object, value: object) -> None:
    kind = _KNOWN.get(str(name))
    if kind is None:
        near = difflib.get_close_matches(str(name).upper(), _KNOWN, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; known are {', '.join(_KNOWN)}"
        msg = f"ASYNCNOTIFY has an unknown key {name!r}{hint}"
        raise ImproperlyConfigured(msg)
    if not isinstance(value, kind):
        msg = f"ASYNCNOTIFY[{name!r}] must be a {kind.__name__}, not of type {type(value).__name__}"
        raise ImproperlyConfigured(msg)


def check_postgresql(alias: str, connection: Any) -> None:  # noqa: ANN401 - of Django, which has no types
    """Raise ImproperlyConfigured unless a connection of Django's is one of PostgreSQL."""
    if connection.vendor != "postgresql":
        msg = f"DATABASES[{alias!r}] is {connection.vendor}: only PostgreSQL has LISTEN and NOTIFY"
        raise ImproperlyConfigured(msg)
