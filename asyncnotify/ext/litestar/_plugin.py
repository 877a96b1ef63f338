"""Plugins that run a listener, or a log, with an application and hand it to the handlers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Generic

from litestar import Response, get
from litestar.di import Provide
from litestar.plugins import InitPluginProtocol  # InitPlugin is there since 2.15

from asyncnotify import Gap, Listener, Notification
from asyncnotify._arguments import check_flag
from asyncnotify.ext._health import health_of
from asyncnotify.ext.litestar._dependencies import ListenerDependency, LogDependency
from asyncnotify.ext.litestar._sources import (
    ListenerSource,
    LogSource,
    Running,
    RunT,
    listener_from,
    log_from,
)
from asyncnotify.ext.shutdown import end_streams_on_signal
from asyncnotify.log import Event, Log

if TYPE_CHECKING:
    from litestar.config.app import AppConfig
    from litestar.handlers import HTTPRouteHandler

_NAMES = {
    **{kind.__name__: kind for kind in (Event, Gap, Listener, Log, Notification)},
    "ListenerDependency": ListenerDependency,
    "LogDependency": LogDependency,
}
"""For annotations of handlers that stand under ``if TYPE_CHECKING``."""


class _RunningPlugin(InitPluginProtocol, Generic[RunT]):
    """Runs something with the application, before what the application runs itself."""

    def __init__(
        self,
        running: Running[RunT],
        *,
        dependency: str,
        health_path: str | None,
        end_streams_on_signal: bool,
    ) -> None:
        check_flag("end_streams_on_signal", end_streams_on_signal)
        self._running = running
        self._dependency = dependency
        self._health_path = health_path
        self._ends_streams = end_streams_on_signal

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the dependency, the health check, and what starts and ends both. Raises nothing."""
        app_config.lifespan.insert(0, self._lifespan)
        app_config.dependencies[self._dependency] = Provide(self._provided, sync_to_thread=False)
        app_config.signature_namespace.update(_NAMES)
        if self._health_path is not None:
            app_config.route_handlers.append(self._health_handler(self._health_path))
        return app_config

    def _provided(self) -> Any:  # noqa: ANN401 - the annotation of the handler's parameter counts
        return self._running.present

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncGenerator[None, None]:
        served = await self._running.start()
        try:
            with end_streams_on_signal(served) if self._ends_streams else contextlib.nullcontext():
                yield
        finally:
            await self._running.close()

    def _health_handler(self, path: str) -> HTTPRouteHandler:
        running = self._running

        @get(path, include_in_schema=False, cache=False, opt={"exclude_from_auth": True})
        async def health() -> Response[dict[str, Any]]:
            """Answer 503 while notifications are being missed."""
            answer = await health_of(running.present)
            headers = {"Cache-Control": "no-store"}
            return Response(answer.body, status_code=answer.status, headers=headers)

        return health


class NotifyPlugin(_RunningPlugin[Listener]):
    """
    A plugin for Litestar: a Listener that runs while the application does.

    Handlers get it by a parameter ``listener: ListenerDependency``. It is started before, and
    closed after, what the application's ``lifespan`` and other plugins run. ``@listener.on(…)``
    registers handlers of notifications as always.

    Args:
        source: A DSN, as Listener takes it; or a Listener; or a function that returns one, which is
            called at each start. One that runs already is not closed here.
        dependency: The name of the parameter.
        health_path: The path of a health check, which answers 200 while notifications are
            delivered and 503 while they are missed, with JSON that says why. None: there is none.
        end_streams_on_signal: Whether SIGINT and SIGTERM end all streams, before the server handles
            the signal: uvicorn and granian wait for responses that are fed by streams.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The DSN is none.
    """

    def __init__(
        self,
        source: ListenerSource = None,
        *,
        dependency: str = "listener",
        health_path: str | None = None,
        end_streams_on_signal: bool = False,
    ) -> None:
        super().__init__(
            listener_from(source),
            dependency=dependency,
            health_path=health_path,
            end_streams_on_signal=end_streams_on_signal,
        )

    @property
    def listener(self) -> Listener:
        """
        The listener.

        Raises:
            NotStartedError: The application does not run.
        """
        return self._running.present


class LogPlugin(_RunningPlugin[Log]):
    """
    A plugin for Litestar: a durable log that runs while the application does.

    Handlers get it by a parameter ``log: LogDependency``. It is started before, and closed after,
    what the application's ``lifespan`` and other plugins run. ``@log.on(…)`` registers consumers
    as always.

    Args:
        source: A Log, or a function that returns one, which is called at each start.
        install: Whether to install the log at the start; takes the rights to make its tables.
        dependency: The name of the parameter.
        health_path: The path of a health check, which answers 200 while the log answers, and 503
            while it does not. None: there is none.
        end_streams_on_signal: Whether SIGINT and SIGTERM end all streams, before the server handles
            the signal: uvicorn and granian wait for responses that are fed by streams.

    Raises:
        TypeError: An argument is of the wrong type.
    """

    def __init__(
        self,
        source: LogSource,
        *,
        install: bool = False,
        dependency: str = "log",
        health_path: str | None = None,
        end_streams_on_signal: bool = False,
    ) -> None:
        check_flag("install", install)
        super().__init__(
            log_from(source, install=install),
            dependency=dependency,
            health_path=health_path,
            end_streams_on_signal=end_streams_on_signal,
        )

    @property
    def log(self) -> Log:
        """
        The log.

        Raises:
            NotStartedError: The application does not run.
        """
        return self._running.present
