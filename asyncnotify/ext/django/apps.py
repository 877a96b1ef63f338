"""The application for ``INSTALLED_APPS``. It connects to nothing by itself."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register

from asyncnotify.ext.django._checks import check_settings
from asyncnotify.ext.django._requests import look_at_requests

__all__ = ["AsyncNotifyConfig"]


class AsyncNotifyConfig(AppConfig):
    """
    Adds the command ``asyncnotify_listen`` and a check of the settings.

    No process listens because of it: ``ready()`` runs in each command, in both processes of the
    autoreloader, and again in a test.
    """

    name = "asyncnotify.ext.django"
    label = "asyncnotify"

    def ready(self) -> None:
        """Register the check; may be called again."""
        register(check_settings, Tags.database)
        look_at_requests()
