"""``manage.py check``: whether the settings can be honoured. Nothing connects."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.utils.connection import ConnectionDoesNotExist

from asyncnotify.ext.django._databases import listener_arguments


def check_settings(**_: Any) -> list[CheckMessage]:  # noqa: ANN401 - as Django calls it
    """Return an error if no listener can be made of the settings."""
    try:
        listener_arguments()
    except (ImproperlyConfigured, ConnectionDoesNotExist) as error:
        return [Error(str(error), id="asyncnotify.E001")]
    return []
