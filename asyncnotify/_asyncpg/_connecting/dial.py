"""Making connections: one host after another, one address after another, each with its deadline."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from asyncnotify._arguments import (
    check_callable,
    check_callbacks,
    check_number,
    unknown_argument,
)
from asyncnotify._asyncpg._connecting.attempts import Attempts, within
from asyncnotify._asyncpg._connecting.forks import leave_connection_to_parent
from asyncnotify._asyncpg._connecting.given import checked
from asyncnotify._asyncpg._connecting.lookups import Lookups
from asyncnotify._asyncpg._connecting.tls import (
    Encryption,
    check_ssl,
    default_context,
    make_context,
    tls_weakness,
)
from asyncnotify._asyncpg._parameters.dsn import check_dsn
from asyncnotify._asyncpg._parameters.settings import Given, Settings, check_password
from asyncnotify._asyncpg.failures import (
    DefectLog,
    Step,
    escape_texts,
    mark,
    naming_tls,
    step,
    step_of,
)
from asyncnotify._errors import AsyncNotifyError, ConfigurationError, ConnectError, place_of
from asyncnotify._escaping import escaped
from asyncnotify._logs import Log, WarningLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from asyncnotify._asyncpg._parameters.hosts import Host

    Connect: TypeAlias = Callable[[], Awaitable[asyncpg.Connection[Any]]]
else:
    Connect = Callable[[], Awaitable[asyncpg.Connection]]  # at run time the class takes no argument
"""What ``connect=`` takes: an async callable that returns a fresh connection at each call."""

SslAnswer: TypeAlias = ssl.SSLContext | bool | str
"""A context of a client's, whether to use TLS, or the name of one of libpq's SSL modes."""

Ssl: TypeAlias = SslAnswer | Callable[[], SslAnswer | Awaitable[SslAnswer]]
"""What ``ssl=`` takes. A function, async or not, is called for every connection, so that a renewed
certificate is followed. A plain one runs in the event loop: it must not wait for a network."""

log = Log("connection")

_NO_POOL: Final = (
    "a pool cannot listen: it resets a connection that it is given back, and may close one that"
    " idles; a listener needs a connection of its own, by a DSN or by connect=;"
    " a Notifier takes a pool as pool="
)

_OURS: Final = {"connection_class", "loop", "record_class", "timeout"}
"""Arguments of asyncpg.connect that a caller may not give."""

_NUMBERS: Final = {
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "statement_cache_size",
}
"""Those that the driver compares with numbers, whatever they are."""

_CALLABLE: Final = ("password", "ssl")
"""Those for which a caller may give a function, which is called for each connection."""

_READ_HERE: Final = {"service", "servicefile"}
"""Arguments that asyncpg.connect takes from 0.31 on; its older versions need not know them."""

_OF_A_NETWORK: Final = (ConnectionError, TimeoutError, socket.gaierror)
"""What an ssl callable raises that asks a service, and that may pass."""

_SHARE_OF_PASS: Final = 0.9
"""How much of its time a pass over all hosts may take: what comes after it takes some, too."""


def check_connect_arguments(
    dsn: object, connect: object, kwargs: Mapping[str, Any], ours: Iterable[str] = ()
) -> None:
    """
    Refuse keyword arguments that asyncpg.connect does not take, or that would go unused.

    Args:
        dsn: The argument of that name.
        connect: The argument of that name.
        kwargs: All arguments that the class does not know itself.
        ours: The names of those that it knows.

    Raises:
        TypeError: An argument is unknown, or cannot be combined with ``connect=``.
    """
    _check_source(dsn, connect, kwargs, ours)
    known = (inspect.signature(asyncpg.connect).parameters.keys() | _READ_HERE) - _OURS
    for name in kwargs:
        if name == "timeout":
            msg = "timeout= is not an argument here: connect_timeout= is"
            raise TypeError(msg)
        if name in _OURS:
            msg = (
                f"{name!r} of asyncpg.connect cannot be given here: make the connection yourself,"
                " in a function that is given as connect="
            )
            raise TypeError(msg)
        if name not in known:
            raise TypeError(unknown_argument(name, {*known, *ours}))
    password = kwargs.get("password")
    if not (password is None or isinstance(password, str) or callable(password)):
        msg = f"password must be a str or a callable, not of type {type(password).__name__}"
        raise TypeError(msg)
    for name in _NUMBERS & kwargs.keys():
        check_number(name, kwargs[name], minimum=0)
    check_ssl(kwargs.get("ssl"))
    check_callbacks(**{name: kwargs[name] for name in _CALLABLE if callable(kwargs.get(name))})
    unused = ["dsn"] * (dsn is not None) + list(kwargs)
    if connect is not None and unused:
        msg = f"{', '.join(unused)} would go unused: connect= (or the engine) makes the connections"
        raise TypeError(msg)


def _check_source(
    dsn: object, connect: object, kwargs: Mapping[str, Any], ours: Iterable[str]
) -> None:
    """Refuse what connections cannot be had from."""
    if isinstance(dsn, asyncpg.Pool) and "pool" in ours:
        msg = "a pool is given as pool="
        raise TypeError(msg)
    if isinstance(connect, asyncpg.Pool) or isinstance(dsn, asyncpg.Pool) or "pool" in kwargs:
        raise TypeError(_NO_POOL)
    check_dsn(dsn)
    if connect is not None:
        check_callable("connect", connect)


_seen: Final[weakref.WeakSet[asyncpg.Connection[Any]]] = weakref.WeakSet()
"""Connections that a ``connect=`` has returned, as long as anyone refers to them."""


class Dialer:
    """
    Makes connections, always with the same arguments or by the same callable.

    Args:
        timeout: Seconds for each address.
        start_timeout: Seconds in which the first pass has to reach every host, if all is to be
            known within that time.
        pass_timeout: The same for every pass, the first one included; each begins with the host
            that answered the last time.

    Raises:
        ConfigurationError: The DSN or another argument cannot be honoured.
        TypeError: An argument is of a type that it cannot have.
    """

    def __init__(
        self,
        dsn: Any,
        connect: Connect | None,
        connect_kwargs: Mapping[str, Any],
        *,
        timeout: float,
        start_timeout: float | None = None,
        pass_timeout: float | None = None,
    ) -> None:
        self._connect = connect
        self._given = None if connect is not None else Given(dsn, connect_kwargs)
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._pass_timeout = pass_timeout
        self._answered: Host | None = None
        self._lookups = Lookups()
        self._told_of_tls = False
        self.warnings = WarningLimit()
        self._defects = DefectLog()
        described = getattr(connect, "target", "connect=")
        self.wanted = "any"  # of the server of the last connection: as target_session_attrs
        if self._given is not None:
            described = self._given.described()
        self.target: str = escaped(described)

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
        self._start_timeout = None
        weakness = None if self._told_of_tls else tls_weakness(connection)
        if weakness is not None:
            self._told_of_tls = True
            text, target = "the connection to %s %s", self.target
            log.warning(self.warnings, weakness, text, target, weakness, target=target)
        return connection

    def opening(self) -> AbstractContextManager[None]:
        """Return a context in which a session is made: a defect in it is told of in the log."""
        return self._defects.watching(self.target)

    async def _dial(self) -> asyncpg.Connection[Any]:
        answer = self._given
        if self._connect is not None:
            answer = await self._called("connect=", self._connect)
        if isinstance(answer, Given):  # an engine's callable says how, and no more
            return await self._dial_as(answer)
        return self._fresh(await checked(answer))

    def _fresh(self, connection: asyncpg.Connection[Any]) -> asyncpg.Connection[Any]:
        if connection in _seen:  # not given back: it is in use, here or by another one, or was
            msg = (
                "connect= returned the same connection twice, here or to another listener, notifier"
                " or log; each call has to make a fresh one"
            )
            raise ConfigurationError(msg)
        _seen.add(connection)
        leave_connection_to_parent(connection)
        return connection

    async def _dial_as(self, arguments: Given) -> asyncpg.Connection[Any]:
        """Prepare all that is the same for every host, then try them."""
        with step(Step.ARGUMENTS):
            settings = arguments.complete(os.environ)
        if callable(settings.password):
            settings.password = await self._called("the password callable", settings.password)
            check_password(settings.password)
        if callable(settings.ssl):
            settings.ssl = await self._asked_for_tls(settings.ssl)
        with step(Step.ARGUMENTS):
            tls = encryption_of(settings)
        attempts = Attempts(
            settings,
            tls,
            self._lookups,
            timeout=self._seconds_for_each(settings),
            warnings=self.warnings,
            begin_with=self._answered,
        )
        connection = await attempts.run()
        self.wanted = attempts.wanted
        if self._pass_timeout is not None:
            self._answered = attempts.host
        return connection

    def _seconds_for_each(self, settings: Settings) -> float:
        """Return the seconds for each address: so many that this pass can reach every host."""
        limit = self._start_timeout or self._pass_timeout
        if limit is None:
            return self._timeout
        share = limit * _SHARE_OF_PASS / len(settings.hosts)
        self._start_timeout = None  # a slow one gets all of its time in the next pass
        return min(self._timeout, share)

    async def _called(self, name: str, function: Callable[[], Any]) -> Any:
        """Return what a callable of the caller's returns, within the time for one address."""
        try:
            return await self._in_time(name, function)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, AsyncNotifyError):
            raise
        except Exception as error:
            msg = f"{name} raised {type(error).__name__} at {place_of(error)}"
            text = "%s; it is called again for the next attempt"
            log.warning(self.warnings, msg, text, msg, target=self.target)
            raise ConnectError(msg) from error

    async def _asked_for_tls(self, function: Callable[[], Any]) -> Any:
        """Return what the ssl callable returns. It works on files of this machine, as TLS does."""
        try:
            answer = await self._in_time("the ssl callable", function)
        except (*_OF_A_NETWORK, AsyncNotifyError):
            raise
        except Exception as error:
            what = f"{type(error).__name__} at {place_of(error)}{_file_of(error)}"
            msg = f"the ssl callable raised {what}"
            raise ConfigurationError(msg) from error
        with step(Step.ARGUMENTS):
            check_ssl(answer)
        return answer

    async def _in_time(self, name: str, function: Callable[[], Any]) -> Any:
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            return await within(lambda: _result_of(function), lambda: deadline, self._timeout)
        except TimeoutError as error:
            if step_of(error) is not None:
                raise  # the function has raised it
            msg = f"{name} has not returned within {self._timeout:g} s"
            raise TimeoutError(msg) from None


def _file_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f": {error.filename}: {os.strerror(error.errno or 0)}"
    return ""


async def _result_of(function: Callable[[], Any]) -> Any:
    """Return what a function of the caller's returns; mark what it raises as the caller's."""
    try:
        with naming_tls():
            result = function()
            return await result if inspect.isawaitable(result) else result
    except Exception as error:
        escape_texts(error)
        mark(error, Step.CALLER)
        raise


def encryption_of(settings: Settings) -> Encryption:
    """
    Return what the driver is told about TLS; reads the files that TLS needs.

    Raises:
        ConfigurationError: One of them cannot be used, and which.
    """
    if isinstance(settings.ssl, ssl.SSLContext):
        return Encryption(settings.ssl, settings.ssl)
    if settings.ssl is True:
        context = default_context()
        return Encryption(context, context)
    mode = settings.ssl_mode
    if mode == "disable" or all(host.is_socket for host in settings.hosts):
        return Encryption(argument=False)
    context = make_context(settings.options, mode)
    return Encryption(mode if mode in {"allow", "prefer"} else context, context)
