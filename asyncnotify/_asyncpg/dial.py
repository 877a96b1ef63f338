"""Making connections: the caller's arguments made into asyncpg's, one host after another."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._asyncpg.connection import HookedConnection, hook_is_intact
from asyncnotify._asyncpg.failures import is_permanent
from asyncnotify._dsn import (
    UNREADABLE_DSN,
    describe_target,
    dsn_parameters,
    normalize_dsn,
    several_hosts,
    split_hosts,
)
from asyncnotify._errors import ConfigurationError, ConnectError
from asyncnotify._events import describe_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    Connect = Callable[[], Awaitable[asyncpg.Connection[Any]]]

logger = logging.getLogger("asyncnotify.connection")

_GRACE: Final = 0.05
"""Seconds for a dial that was given up to end: longer than the loop needs to read its sockets."""

_OURS: Final = {"connection_class", "loop", "record_class", "timeout"}
"""Arguments of asyncpg.connect that a caller may not give."""


def check_connect_arguments(
    dsn: str | None, connect: Connect | None, kwargs: Mapping[str, Any]
) -> None:
    """
    Refuse keyword arguments that asyncpg.connect does not take, or that would go unused.

    Raises:
        TypeError: An argument is unknown, or cannot be combined with ``connect=``.
    """
    known = inspect.signature(asyncpg.connect).parameters.keys() - _OURS
    for name in kwargs:
        if name == "timeout":
            msg = "timeout= is not an argument here: connect_timeout= is"
            raise TypeError(msg)
        if name not in known:
            msg = f"unexpected keyword argument {name!r}; it is none of asyncpg.connect either"
            raise TypeError(msg)
    unused = ["dsn"] * (dsn is not None) + list(kwargs)
    if connect is not None and unused:
        msg = f"{', '.join(unused)} would go unused: connect= makes the connections"
        raise TypeError(msg)


class Dialer:
    """Makes connections, always with the same arguments or by the same callable."""

    def __init__(
        self,
        dsn: str | None,
        connect: Connect | None,
        connect_kwargs: Mapping[str, Any],
        *,
        timeout: float,
    ) -> None:
        self._dsn = dsn
        self._connect = connect
        self._kwargs = dict(connect_kwargs)
        self._timeout = timeout
        self.target = "connect=" if connect else describe_target(dsn, connect_kwargs)

    async def dial(self) -> asyncpg.Connection[Any]:
        """
        Return a fresh connection.

        May be cancelled: no connection is left behind.

        Raises:
            ConfigurationError: The arguments are wrong.
            Exception: What the driver, or the caller's ``connect``, raised.
            TimeoutError: A host did not answer within the connect timeout.
        """
        if self._connect is not None:
            return _checked(await self._bounded(_as_coroutine(self._connect)))
        arguments = self._arguments()
        hosts = self._hosts(arguments)
        if not hosts:
            return _checked(await self._bounded(_connect_asyncpg(arguments)))
        return await self._dial_first_of(hosts, arguments)

    async def _dial_first_of(
        self, hosts: list[tuple[str, int | None]], arguments: dict[str, Any]
    ) -> asyncpg.Connection[Any]:
        """Try each host with a deadline of its own: a silent one must not use up the others'."""
        for host, port in hosts[:-1]:
            try:
                return await self._dial_host(host, port, arguments)
            except Exception as error:  # whatever it is, the next host may do
                if is_permanent(error):
                    raise
                logger.debug("host %s: %s", host, describe_error(error))
        return await self._dial_host(*hosts[-1], arguments)

    async def _dial_host(
        self, host: str, port: int | None, arguments: dict[str, Any]
    ) -> asyncpg.Connection[Any]:
        arguments = {**arguments, "host": host, "port": port}
        return _checked(await self._bounded(_connect_asyncpg(arguments)))

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments for asyncpg.connect, with our defaults where none were given."""
        arguments = dict(self._kwargs)
        if self._dsn is not None:
            arguments["dsn"] = normalize_dsn(self._dsn)
        in_dsn = dsn_parameters(arguments.get("dsn"))
        settings = dict(arguments.get("server_settings") or {})
        if "application_name" not in in_dsn:
            settings.setdefault("application_name", "asyncnotify")
        arguments["server_settings"] = settings
        if _needs_primary(in_dsn, arguments):
            arguments["target_session_attrs"] = "primary"
        if callable(arguments.get("password")):
            arguments["password"] = _guarded_password(arguments["password"])
        arguments["connection_class"] = HookedConnection if hook_is_intact() else asyncpg.Connection
        arguments["timeout"] = self._timeout
        return arguments

    def _hosts(self, arguments: dict[str, Any]) -> list[tuple[str, int | None]]:
        in_dsn = dsn_parameters(arguments.get("dsn"))
        if _wanted_session(in_dsn, arguments) == "prefer-standby":
            return []  # needs all the hosts at once
        try:
            return split_hosts(arguments.get("dsn"), arguments)
        except ValueError:
            return []  # asyncpg will say what is wrong

    async def _bounded(self, connecting: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(connecting)
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        except BaseException:
            await _abandon(task)
            raise
        if not task.done():
            await _abandon(task)
            msg = f"no connection within {self._timeout:g} s"
            raise TimeoutError(msg)
        return task.result()


async def _as_coroutine(connect: Connect) -> Any:
    return await connect()


async def _connect_asyncpg(arguments: dict[str, Any]) -> asyncpg.Connection[Any]:
    unreadable = False
    try:
        return await asyncpg.connect(**arguments)  # type: ignore[no-any-return]
    except _PasswordError as error:
        cause = error.__cause__
        msg = f"the password callable raised {type(cause).__name__}"
        raise ConnectError(msg) from cause
    except asyncpg.ClientConfigurationError:
        raise
    except ValueError as error:
        # Raised outside of the except block: the text may hold a piece of the password
        unreadable = "dsn" in arguments and not isinstance(error, asyncpg.InterfaceError)
        if not unreadable:
            raise
    raise ConfigurationError(UNREADABLE_DSN)


def _needs_primary(in_dsn: Mapping[str, str], arguments: Mapping[str, Any]) -> bool:
    """LISTEN is refused on a standby, so among several hosts only the primary will do."""
    chosen = _wanted_session(in_dsn, arguments)
    return not chosen and several_hosts(arguments.get("dsn"), arguments)


def _wanted_session(in_dsn: Mapping[str, str], arguments: Mapping[str, Any]) -> str | None:
    given = arguments.get("target_session_attrs") or in_dsn.get("target_session_attrs")
    return given or os.environ.get("PGTARGETSESSIONATTRS")


class _PasswordError(Exception):
    """The password callable failed; its cause says why. No mistake of the DSN."""


def _guarded_password(password: Callable[[], Any]) -> Callable[[], Any]:
    async def guarded() -> Any:
        try:
            result = password()
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            raise _PasswordError from error

    return guarded


def _checked(connection: Any) -> asyncpg.Connection[Any]:
    if isinstance(connection, asyncpg.Connection) and "Proxy" not in type(connection).__name__:
        return connection
    msg = (
        f"connect= returned a {type(connection).__name__}, not a fresh asyncpg.Connection;"
        " a pooled connection cannot listen, because the pool resets it"
    )
    raise ConfigurationError(msg)


async def _abandon(task: asyncio.Future[Any]) -> None:
    """Cancel a dial; a connection that was made all the same is thrown away."""
    task.add_done_callback(_discard)
    task.cancel()
    await asyncio.wait({task}, timeout=_GRACE)


def _discard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        result = task.result()
        if isinstance(result, asyncpg.Connection):
            result.terminate()
