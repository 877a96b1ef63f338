"""Trying one host after another, and one address after another, until a server accepts."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from asyncnotify._asyncpg import untraced
from asyncnotify._asyncpg._connecting.given import checked, discard
from asyncnotify._asyncpg._connecting.racing import DialLoop, Race
from asyncnotify._asyncpg._parameters.files import find_password, password_file
from asyncnotify._asyncpg.connection import HookedConnection, hook_is_intact
from asyncnotify._asyncpg.failures import (
    Step,
    add_to_text,
    escape_texts,
    is_permanent,
    mark,
    naming_tls,
    needs_repair,
    step,
)
from asyncnotify._asyncpg.roles import check_role
from asyncnotify._errors import ConnectError, describe_error
from asyncnotify._logs import Log
from asyncnotify._tasks import READ_GRACE, Sealed, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncnotify._asyncpg._connecting.lookups import Address, Lookups
    from asyncnotify._asyncpg._connecting.tls import Encryption
    from asyncnotify._asyncpg._parameters.hosts import Host
    from asyncnotify._asyncpg._parameters.settings import Settings
    from asyncnotify._logs import WarningLimit

log = Log("connection")

_OF_THE_SERVER: Final = (OSError, asyncpg.PostgresError, asyncpg.InternalClientError)


class Attempts:
    """
    All that is tried for one connection.

    Args:
        settings: What to connect to, and how.
        tls: What the driver is told about TLS.
        lookups: Where the addresses of names come from.
        timeout: Seconds for each address, and for each lookup.
        warnings: The limit of what is logged.
        begin_with: The host that is tried before the others.

    Attributes:
        host: The one that the connection leads to.
        wanted: Which kind of server the connection leads to: as ``target_session_attrs``.
    """

    def __init__(
        self,
        settings: Settings,
        tls: Encryption,
        lookups: Lookups,
        *,
        timeout: float,
        warnings: WarningLimit,
        begin_with: Host | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._lookups = lookups
        self._timeout = timeout
        self._warnings = warnings
        self._begin_with = begin_with
        self._failures: list[tuple[str, Exception]] = []
        self.host: Host | None = None
        self.wanted = settings.wanted

    async def run(self) -> asyncpg.Connection[Any]:
        """
        Return the first connection that can be had. May be cancelled: none is left behind.

        Raises:
            Exception: What the only attempt raised, or one that no other host can help.
            ConnectError: Of several attempts each has failed: all of them, with the reasons.
        """
        wanted = self._settings.wanted
        for kind in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
            for host in self._hosts():
                connection = await self._try_host(host, kind)
                if connection is not None:
                    self.host = host
                    return connection
        raise self._combined()

    def _hosts(self) -> list[Host]:
        hosts = list(self._settings.hosts)
        if self._settings.options.get("load_balance_hosts") == "random":
            random.shuffle(hosts)
        return sorted(hosts, key=lambda host: host != self._begin_with)

    async def _try_host(self, host: Host, kind: str) -> asyncpg.Connection[Any] | None:
        """Return a connection to one of a host's addresses; None if each has failed."""
        try:
            with step(Step.NETWORK):
                addresses = await self._addresses(host)
        except OSError as error:
            self._note(str(host), error)
            return None
        if self._settings.any_will_do and len({one for one in addresses if not one.is_local}) > 1:
            kind = "primary"  # one of them may lead to a standby, which cannot LISTEN
        while True:
            race = Race(addresses, timeout=self._timeout)
            try:
                return await self._connect(host, kind, race)
            except Exception as error:
                if is_permanent(error):
                    raise
                self._note_race(host, race, error)
            addresses = race.untried
            if race.winner is None or not addresses:
                return None

    async def _addresses(self, host: Host) -> list[Address]:
        if host.is_socket:
            return []
        found = await self._lookups.resolve(host.address, host.port, timeout=self._timeout)
        if self._settings.options.get("load_balance_hosts") == "random":
            random.shuffle(found)
        return found

    async def _connect(self, host: Host, kind: str, race: Race) -> asyncpg.Connection[Any]:
        arguments = self._arguments(host)

        def connect() -> Coroutine[Any, Any, Any]:
            return self._accepted(arguments, kind, race)

        return await checked(await within(connect, lambda: race.deadline, self._timeout))

    async def _accepted(self, arguments: dict[str, Any], kind: str, race: Race) -> Any:
        """Return a connection to a server of this kind."""
        connection = await connect_asyncpg(arguments, DialLoop(race, self._tls.context), race)
        try:
            await check_role(connection, kind)
        except BaseException:
            connection.terminate()
            raise
        self.wanted = kind
        return connection

    def _arguments(self, host: Host) -> dict[str, Any]:
        """Return the keyword arguments for the driver: nothing is left for it to look for."""
        settings = self._settings
        kerberos = {
            name: settings.options[name]
            for name in ("krbsrvname", "gsslib")
            if settings.options.get(name)
        }
        return {
            "connection_class": HookedConnection if hook_is_intact() else asyncpg.Connection,
            **settings.driver,
            **kerberos,
            "host": host.name if not host.is_socket else host.address,
            "port": host.port,
            "user": settings.user,
            "password": settings.password or self._filed_password(host) or "",
            "database": settings.database,
            "ssl": False if host.is_socket else self._tls.argument,
            "direct_tls": settings.options.get("sslnegotiation") == "direct",
            "server_settings": settings.server_settings,
            "target_session_attrs": "any",  # check_role() looks
            "timeout": settings.driver.get("timeout"),
        }

    def _filed_password(self, host: Host) -> str | None:
        names = {host.name, "localhost"} if host.is_socket else {host.name}
        settings = self._settings
        file = password_file(settings.options.get("passfile"), self._warnings)
        return find_password(file, names, host.port, settings.database, settings.user)

    # -- what has failed ----------------------------------------------------------------------

    def _note_race(self, host: Host, race: Race, error: Exception) -> None:
        for address, failure in race.failures.items():
            self._note(_named(host, address), failure)
        if race.winner is not None or not race.failures:
            where = str(host) if race.winner is None else _named(host, race.winner)
            self._note(where, error)

    def _note(self, where: str, error: Exception) -> None:
        if isinstance(error, TimeoutError) and len(self._settings.hosts) > 1:
            # It costs that time at each attempt, and nobody would see why
            text = "%s does not answer, and each attempt to connect waits for it: %s"
            log.warning(self._warnings, ("silent", where), text, where, describe_error(error))
        else:
            log.debug("%s: %s", where, describe_error(error))
        self._failures.append((where, error))

    def _combined(self) -> Exception:
        """Return the only failure; of several, one error that tells of them all."""
        errors = [error for _, error in self._failures]
        if len(errors) == 1:
            return errors[0]
        said = "; ".join(f"{where}: {describe_error(error)}" for where, error in self._failures)
        combined = ConnectError(f"no address could be connected to: {said}")
        # What a repair would help with decides: the others may be dead for good
        telling = next((error for error in errors if needs_repair(error)), errors[-1])
        combined.__cause__ = telling
        mark(combined, Step.NETWORK)
        return combined


def _named(host: Host, address: Address) -> str:
    plain = str(address)
    return plain if plain == str(host) else f"{host} ({address})"


_NOTHING_GIVEN: Final = (
    "no password was given, in the DSN, by password= or PGPASSWORD, or in a password file"
)

# -- the driver -----------------------------------------------------------------------------------


async def connect_asyncpg(arguments: dict[str, Any], loop: Any, race: Race) -> Any:
    """
    Return what the driver makes of these arguments, of which it must look up nothing.

    Raises:
        Exception: What the driver raised; marked with the step that failed.
    """
    connection: Any
    try:
        with naming_tls():
            connection = await untraced.connect(**arguments, loop=loop)
    except Exception as error:
        escape_texts(error)
        if isinstance(error, asyncpg.InvalidPasswordError) and not arguments.get("password"):
            add_to_text(error, _NOTHING_GIVEN)
        if not race.begun and not isinstance(error, _OF_THE_SERVER):
            mark(error, Step.ARGUMENTS)  # the driver has looked at them, and done nothing else
        elif race.refusal is not None:
            raise _no_postgres(race.refusal) from error
        elif _is_of_closed_transport(error):
            mark(error, Step.NETWORK)
        raise
    with suppress(AttributeError):
        connection._loop = asyncio.get_running_loop()  # noqa: SLF001 - what is given is for dialling
    return connection


def _no_postgres(refusal: Exception) -> ConnectError:
    error = ConnectError(str(refusal))
    mark(error, Step.NETWORK)
    return error


def _is_of_closed_transport(error: Exception) -> bool:
    """Return whether this is how a transport that has just ended answers."""
    return isinstance(error, ValueError | RuntimeError) and not isinstance(error, UnicodeError)


# -- deadlines ------------------------------------------------------------------------------------


async def within(
    connect: Callable[[], Coroutine[Any, Any, Any]], deadline: Callable[[], float], seconds: float
) -> Any:
    """
    Return what a coroutine returns, a connection perhaps. What comes too late is given back.

    Args:
        connect: Makes the coroutine.
        deadline: Until when, by the loop's clock; it may move while the coroutine runs.
        seconds: How long that is, for the error.

    Raises:
        TimeoutError: It took too long.
        ConnectError: The coroutine has cancelled itself.
    """
    task = asyncio.ensure_future(sealed(connect))
    loop = asyncio.get_running_loop()
    try:
        while not task.done() and (left := deadline() - loop.time()) > 0:
            await asyncio.wait({task}, timeout=left)
    except BaseException:
        await _abandon(task)
        raise
    if not task.done():
        await _abandon(task)
        msg = f"no connection within {seconds:g} s"
        raise TimeoutError(msg)
    try:
        outcome = task.result()
    except asyncio.CancelledError:
        msg = "the call that was to make a connection cancelled itself"
        raise ConnectError(msg) from None
    return outcome.open()


async def _abandon(task: asyncio.Future[Sealed[Any]]) -> None:
    """Cancel a dial; a connection that was made all the same is thrown away."""
    task.add_done_callback(_discard)
    try:
        # asyncpg leaves an exception unretrieved if cancelled in the moment in which TCP connects:
        # a server that answers may as well finish, and one that does not is past that moment
        await asyncio.wait({task}, timeout=READ_GRACE)
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=READ_GRACE)


def _discard(task: asyncio.Future[Sealed[Any]]) -> None:
    if not task.cancelled() and task.exception() is None and not task.result().has_failed:
        discard(task.result().open())
