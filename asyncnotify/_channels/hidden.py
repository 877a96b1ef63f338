"""
What an encoder hides: it sends something else instead, and does not say so.

pydantic writes the mask of a secret, and writes NaN as null, as msgspec does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CONTAINERS: Final = (list, tuple, set, frozenset, deque)
_MARKS: Final = (
    "__pydantic_validator__",  # models and dataclasses of pydantic
    "__dataclass_fields__",
    "__struct_fields__",  # of msgspec
    "__attrs_attrs__",
)
"""Attributes of classes whose objects a library encodes by their fields."""


def masked_secret(payload: object, text: str) -> str | None:
    """Return why the text is refused if it has the mask of a secret in the payload, else None."""
    if "*" not in text:  # no mask: nearly always
        return None
    for secret in _secrets_in(payload):
        mask = _mask(secret)
        if mask and mask in text:
            name = type(secret).__name__
            return f"contains a {name}, of which {mask!r} would be sent instead of its value"
    return None


def secret_in(payload: object) -> str | None:
    """Return why what an encoder does not take is refused if that has a secret in it, else None."""
    for secret in _secrets_in(payload):
        return f"contains a {type(secret).__name__}, whose value stays secret"
    return None


def nulled_number(payload: object, text: str) -> str | None:
    """Return why the text is refused if it has null for a number in the payload, else None."""
    if "null" not in text:
        return None
    for part in _parts_of(payload):
        if isinstance(part, float) and not math.isfinite(part):
            return f"contains {part!r}, which JSON does not have"
    return None


def _secrets_in(payload: object) -> Iterator[object]:
    """Yield what pydantic, or a class made like its own, calls a secret."""
    for part in _parts_of(payload):
        if callable(getattr(type(part), "get_secret_value", None)):
            yield part


def _mask(secret: object) -> str:
    """Return what is sent for a secret; nothing for one that is empty, which is sent as it is."""
    text = str(secret)
    return text[2:-1] if text.startswith("b'") else text  # of bytes


# -- the parts of a payload -----------------------------------------------------------------------


def _parts_of(payload: object) -> Iterator[object]:
    """Yield the payload and all that is in it, each object once."""
    seen: set[int] = set()
    todo = [payload]
    while todo:
        part = todo.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            todo.extend(_inside(part))


def _inside(part: object) -> Iterable[object]:
    if isinstance(part, _CONTAINERS):
        return part
    if isinstance(part, Mapping):
        return chain(part, part.values())
    if isinstance(part, Enum):
        return (part.value,)
    kind = type(part)
    return _fields_of(part) if any(hasattr(kind, mark) for mark in _MARKS) else ()


def _fields_of(part: object) -> Iterable[object]:
    """Return the values of the fields; no property is called, nothing is loaded."""
    try:
        fields = [*vars(part).values()]
    except TypeError:
        fields = []
    slots = [name for kind in type(part).__mro__ for name in _slots_of(kind)]
    return [*fields, *(getattr(part, name) for name in slots if hasattr(part, name))]


def _slots_of(kind: type) -> Iterable[str]:
    """Return the names of the slots that hold data: fields, and the extras of a pydantic model."""
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else slots
    return [name for name in names if name == "__pydantic_extra__" or not name.startswith("__")]
