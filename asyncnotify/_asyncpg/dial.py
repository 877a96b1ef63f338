"""Making connections: the caller's arguments made into asyncpg's, one host after another."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import asyncpg

from asyncnotify._asyncpg.connection import HookedConnection, hook_is_intact
from asyncnotify._asyncpg.dsn import (
    UNREADABLE_DSN,
    describe_target,
    dsn_parameters,
    normalize_dsn,
    refuse_impossible_ports,
    several_hosts,
    single_host,
    split_hosts,
)
from asyncnotify._asyncpg.failures import is_permanent
from asyncnotify._asyncpg.lookups import Lookups
from asyncnotify._asyncpg.tls import tls_weakness
from asyncnotify._errors import AsyncNotifyError, ConfigurationError, ConnectError, describe_error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    Connect: TypeAlias = Callable[[], Awaitable[asyncpg.Connection[Any]]]
else:
    Connect = Callable[[], Awaitable[asyncpg.Connection]]  # at run time the class takes no argument
"""What ``connect=`` takes: an async callable that returns a fresh connection at each call."""

logger = logging.getLogger("asyncnotify.connection")

_GRACE: Final = 0.05
"""Seconds for a dial that was given up to end: longer than the loop needs to read its sockets."""

_UNENCODABLE: Final = "an argument, such as the password, cannot be encoded as UTF-8"

_NO_POOL: Final = (
    "a pool cannot listen: it resets a connection that it is given back, and may close one that"
    " idles; a listener needs a connection of its own, by a DSN or by connect=;"
    " a Notifier takes a pool as pool="
)

_UTF8: Final = {"utf8", "unicode"}

_OURS: Final = {"connection_class", "loop", "record_class", "timeout"}
"""Arguments of asyncpg.connect that a caller may not give."""


def check_connect_arguments(dsn: object, connect: object, kwargs: Mapping[str, Any]) -> None:
    """
    Refuse keyword arguments that asyncpg.connect does not take, or that would go unused.

    Raises:
        TypeError: An argument is unknown, or cannot be combined with ``connect=``.
    """
    _check_source(dsn, connect, kwargs)
    known = inspect.signature(asyncpg.connect).parameters.keys() - _OURS
    for name in kwargs:
        if name == "timeout":
            msg = "timeout= is not an argument here: connect_timeout= is"
            raise TypeError(msg)
        if name not in known:
            msg = f"unexpected keyword argument {name!r}; it is none of asyncpg.connect either"
            raise TypeError(msg)
    password = kwargs.get("password")
    if not (password is None or isinstance(password, str) or callable(password)):
        msg = f"password must be a str or a callable, not of type {type(password).__name__}"
        raise TypeError(msg)
    unused = ["dsn"] * (dsn is not None) + list(kwargs)
    if connect is not None and unused:
        msg = f"{', '.join(unused)} would go unused: connect= makes the connections"
        raise TypeError(msg)


def _check_source(dsn: object, connect: object, kwargs: Mapping[str, Any]) -> None:
    """Refuse what connections cannot be had from."""
    if isinstance(connect, asyncpg.Pool) or isinstance(dsn, asyncpg.Pool) or "pool" in kwargs:
        raise TypeError(_NO_POOL)
    if not (dsn is None or isinstance(dsn, str)):
        msg = f"dsn must be a str, not of type {type(dsn).__name__}"
        raise TypeError(msg)
    if not (connect is None or callable(connect)):
        msg = f"connect must be callable, not of type {type(connect).__name__}"
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
        self._lookups = Lookups()
        self._given: weakref.WeakSet[asyncpg.Connection[Any]] = weakref.WeakSet()
        self._told_of_tls = False
        self.target: str = describe_target(dsn, connect_kwargs)
        if connect is not None:
            self.target = getattr(connect, "target", "connect=")

    async def dial(self) -> asyncpg.Connection[Any]:
        """
        Return a fresh connection; warn, the first time, if TLS does not protect it.

        May be cancelled: no connection is left behind.

        Raises:
            ConfigurationError: The arguments are wrong.
            Exception: What the driver, or the caller's ``connect``, raised.
            TimeoutError: A host did not answer within the connect timeout.
        """
        connection = await self._dial()
        weakness = None if self._told_of_tls else tls_weakness(connection)
        if weakness is not None:
            self._told_of_tls = True
            logger.warning("the connection to %s %s", self.target, weakness)
        return connection

    async def _dial(self) -> asyncpg.Connection[Any]:
        if self._connect is not None:
            return self._fresh(_checked(await self._bounded(_called(self._connect))))
        arguments = self._arguments()
        hosts = self._hosts(arguments)
        if not hosts:
            host = single_host(arguments.get("dsn"), arguments)
            return _checked(await self._bounded(self._resolve_and_connect(host, arguments)))
        return await self._dial_first_of(hosts, arguments)

    def _fresh(self, connection: asyncpg.Connection[Any]) -> asyncpg.Connection[Any]:
        if connection in self._given:
            msg = "connect= returned the same connection twice; each call has to make a fresh one"
            raise ConfigurationError(msg)
        self._given.add(connection)
        return connection

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
        return _checked(await self._bounded(self._resolve_and_connect(host, arguments)))

    async def _resolve_and_connect(self, host: str, arguments: dict[str, Any]) -> Any:
        await self._lookups.resolve(host)
        return await connect_asyncpg(arguments)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments for asyncpg.connect, with our defaults where none were given."""
        arguments = dict(self._kwargs)
        if self._dsn is not None:
            arguments["dsn"] = normalize_dsn(self._dsn)
        refuse_impossible_ports(arguments.get("dsn"), arguments)
        in_dsn = dsn_parameters(arguments.get("dsn"))
        settings = dict(arguments.get("server_settings") or {})
        _refuse_encoding(settings.get("client_encoding") or in_dsn.get("client_encoding"))
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
        try:
            return task.result()
        except asyncio.CancelledError:
            msg = "the call that was to make a connection cancelled itself"
            raise ConnectError(msg) from None


async def _called(connect: Connect) -> Any:
    try:
        return await connect()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, AsyncNotifyError):
        raise
    except Exception as error:
        # Its text is the caller's, and may hold the DSN: the cause tells it, no log line of ours
        kind = ConfigurationError if is_permanent(error) else ConnectError
        msg = f"connect= raised {type(error).__name__}"
        raise kind(msg) from error


async def connect_asyncpg(arguments: dict[str, Any]) -> asyncpg.Connection[Any]:
    unreadable = False
    try:
        # mypy picks no overload for **arguments
        return await asyncpg.connect(**arguments)  # type: ignore[no-any-return]
    except _PasswordError as error:
        cause = error.__cause__
        msg = f"the password callable raised {type(cause).__name__}"
        raise ConnectError(msg) from cause
    except (asyncpg.ClientConfigurationError, ssl.SSLError):
        raise  # a ValueError too, where a certificate does not verify
    except asyncpg.InternalClientError as error:
        unreadable = isinstance(error.__cause__ or error.__context__, UnicodeError)
        if not unreadable:
            raise
    except ValueError as error:
        # Raised outside of the except block: the text may hold a piece of the password
        unreadable = isinstance(error, UnicodeError) or (
            "dsn" in arguments and not isinstance(error, asyncpg.InterfaceError)
        )
        if not unreadable:
            raise
    raise ConfigurationError(UNREADABLE_DSN if "dsn" in arguments else _UNENCODABLE)


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
    if _is_connection(connection):
        return _usable(cast("asyncpg.Connection[Any]", connection))
    msg = (
        f"connect= returned a {type(connection).__name__}, not a fresh asyncpg.Connection;"
        " a pooled connection cannot listen, because the pool resets it"
    )
    raise ConfigurationError(msg)


def _usable(connection: asyncpg.Connection[Any]) -> asyncpg.Connection[Any]:
    """Return a connection that can listen; refuse, and drop, one that would never deliver."""
    try:
        if not connection.is_closed():
            _refuse_encoding(connection.get_settings().client_encoding)
            _refuse_transaction(connection)
    except ConfigurationError:
        connection.terminate()
        raise
    return connection


def _refuse_transaction(connection: asyncpg.Connection[Any]) -> None:
    if connection.is_in_transaction():
        msg = "connect= returned a connection in a transaction, where LISTEN has no effect"
        raise ConfigurationError(msg)


def _refuse_encoding(name: str | None) -> None:
    # asyncpg sends the text of a statement as UTF-8 in any case: LISTEN would hear another name
    if name is not None and name.lower().strip("'").replace("-", "") not in _UTF8:
        msg = f"client_encoding must be UTF8, not {name}: channels would get other names"
        raise ConfigurationError(msg)


async def _abandon(task: asyncio.Future[Any]) -> None:
    """Cancel a dial; a connection that was made all the same is thrown away."""
    task.add_done_callback(_discard)
    try:
        # asyncpg leaves an exception unretrieved if cancelled in the moment in which TCP connects:
        # a server that answers may as well finish, and one that does not is past that moment
        await asyncio.wait({task}, timeout=_GRACE)
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=_GRACE)


def _discard(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        result = task.result()
        if _is_connection(result):
            result.terminate()


def _is_connection(thing: object) -> bool:
    # not isinstance(): asyncpg's metaclass says yes for a pool's proxy as well
    return issubclass(type(thing), asyncpg.Connection)
