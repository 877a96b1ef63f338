"""``python manage.py asyncnotify_listen``: run the handlers of all apps."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils import autoreload
from django.utils.connection import ConnectionDoesNotExist

from asyncnotify import AsyncNotifyError
from asyncnotify.ext.django._handlers import close_connections, discover
from asyncnotify.ext.django._running import run

__all__ = ["Command"]


class Command(BaseCommand):
    """The command."""

    help = (
        "Run the handlers that the modules `notifications` of the installed apps register by @on,"
        " until SIGTERM or Ctrl-C. Survives restarts of the database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--database",
            metavar="ALIAS",
            help="which of DATABASES to listen on; by default as ASYNCNOTIFY['DATABASE'] says",
        )
        parser.add_argument(
            "--autoreload",
            action="store_true",
            help="start again whenever the code changes, as runserver does: for development",
        )

    def handle(self, *_: Any, **options: Any) -> None:  # noqa: ANN401 - as Django calls it
        """Run, in a process of its own if the code is to be reloaded."""
        if options["autoreload"]:
            autoreload.run_with_reloader(self._listen, options["database"])
        else:
            self._listen(options["database"])

    def _listen(self, alias: str | None) -> None:
        autoreload.raise_last_exception()
        channels = discover()
        if not channels:
            msg = "no handler is registered: decorate some by @on in notifications.py of an app"
            raise CommandError(msg)
        names = ", ".join(channels)
        try:
            asyncio.run(run(alias, started=lambda: self._say(f"listening on {names}")))
        except (AsyncNotifyError, ConnectionDoesNotExist, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        finally:
            close_connections()
        self._say("stopped")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
