"""TLS between asyncnotify and a real server: names, authorities, certificates, and their change."""

from __future__ import annotations

import asyncio
import functools
import shutil
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    ConfigurationError,
    ConnectError,
    ExponentialBackoff,
    Gap,
    Listener,
    Notification,
    Notifier,
    Reconnected,
    RetryScheduled,
    State,
)
from asyncnotify.testing.proxy import FaultProxy
from tests.support.addresses import resolving
from tests.support.certificates import Authority, Certificate
from tests.support.machine import scaled
from tests.support.server_features import major_of
from tests.support.tls_server import ADDRESS, WAIT_LIMIT, TlsServer, tls_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncnotify import ConnectionEvent, EventStream
    from asyncnotify.testing.server import PostgresServer

NAME = "db.example"
DIRECT_SINCE = 17


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has signed the certificates of the server and of its clients."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one, which the other side does not trust."""
    return Authority(tmp_path_factory.mktemp("foreign"), "foreign")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """The server's: it is good for a name and for an address."""
    return authority.issue("server", f"DNS:{NAME}", f"IP:{ADDRESS}")


@pytest.fixture(scope="module")
def running(
    template: PostgresServer, certificate: Certificate, authority: Authority
) -> Iterator[TlsServer]:
    """A server with TLS."""
    with tls_server(template, certificate, authority.certificate) as server:
        yield server


@pytest_asyncio.fixture
async def server(
    running: TlsServer, certificate: Certificate, authority: Authority
) -> AsyncIterator[TlsServer]:
    """That server, at two names; it shows its certificate again when the test has changed it."""
    with resolving(db_example=[ADDRESS], other_example=[ADDRESS]):
        yield running
    await running.show(certificate, authority.certificate)


async def delivers(listener: Listener) -> None:
    """Check that a listener gets what it sends, and that both of its connections have TLS."""
    async with listener.stream("orders") as stream:
        await listener.notify("orders", "news")
        async with asyncio.timeout(WAIT_LIMIT):
            assert (await anext(stream)).payload == "news"


async def until(events: EventStream, kind: type[ConnectionEvent]) -> Any:
    """Return the next event of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not isinstance(event := await anext(events), kind):
            pass
    return event


async def is_refused(dsn: str, text: str) -> None:
    """Check that neither a listener nor a notifier starts with it, at the first attempt."""
    for kind in (Listener, Notifier):
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectError, match=text):
            await kind(dsn, start_timeout=WAIT_LIMIT).start()
        assert asyncio.get_running_loop().time() - began < WAIT_LIMIT / 2


# -- the server's certificate ---------------------------------------------------------------------


@pytest.mark.parametrize("host", [NAME, ADDRESS])
@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
async def test_a_certificate_of_the_authority_is_accepted(
    server: TlsServer, authority: Authority, host: str, mode: str
) -> None:
    """By its name and by its address; listening and sending are encrypted."""
    dsn = server.dsn("encrypted", host, sslmode=mode, sslrootcert=authority.certificate)
    async with Listener(dsn) as listener:
        await delivers(listener)
        sessions = await server.sessions()
    assert [session["ssl"] for session in sessions] == [True, True]
    assert {session["version"] for session in sessions} <= {"TLSv1.2", "TLSv1.3"}


async def test_a_context_of_the_callers_verifies(server: TlsServer, authority: Authority) -> None:
    """With all that the standard library is strict about."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    async with Listener(server.dsn("encrypted", NAME), ssl=context) as listener:
        await delivers(listener)
    with pytest.raises(ConfigurationError, match=r"other\.example"):
        await Listener(server.dsn("encrypted", "other.example"), ssl=context).start()


async def test_a_name_that_is_not_in_the_certificate_is_refused_by_verify_full(
    server: TlsServer, authority: Authority
) -> None:
    """The message names it; verify-ca asks for the authority only."""
    roots = authority.certificate
    options = {"sslmode": "verify-full", "sslrootcert": roots}
    await is_refused(server.dsn("encrypted", "other.example", **options), r"other\.example")
    options["sslmode"] = "verify-ca"
    async with Listener(server.dsn("encrypted", "other.example", **options)) as listener:
        await delivers(listener)


async def test_an_address_that_is_not_in_the_certificate_is_refused_by_verify_full(
    server: TlsServer, authority: Authority
) -> None:
    """A certificate for a name says nothing of the address."""
    await server.show(authority.issue("named", f"DNS:{NAME}"), authority.certificate)
    options = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    await is_refused(server.dsn("encrypted", ADDRESS, **options), ADDRESS)
    async with Listener(server.dsn("encrypted", NAME, **options)) as listener:
        await delivers(listener)


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_an_expired_certificate_is_refused_where_it_is_verified(
    server: TlsServer, authority: Authority, mode: str
) -> None:
    """With an authority's certificate given, also by ``require``; the message says why."""
    expired = authority.issue("expired", f"DNS:{NAME}", expired=True)
    await server.show(expired, authority.certificate)
    dsn = server.dsn("encrypted", NAME, sslmode=mode, sslrootcert=authority.certificate)
    await is_refused(dsn, "certificate has expired")
    async with Listener(server.dsn("encrypted", NAME, sslmode="require")) as listener:
        await delivers(listener)


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_a_foreign_authority_is_refused(
    server: TlsServer, foreign: Authority, mode: str
) -> None:
    """Whatever name its certificate has."""
    dsn = server.dsn("encrypted", NAME, sslmode=mode, sslrootcert=foreign.certificate)
    await is_refused(dsn, "CERTIFICATE_VERIFY_FAILED")


# -- the client's certificate ---------------------------------------------------------------------


def showing(certificate: Certificate, **options: object) -> dict[str, Any]:
    """Return the options that show a client's certificate."""
    shown = {"sslcert": certificate.certificate, "sslkey": certificate.key}
    return {"sslmode": "require", **shown, **options}


@pytest.mark.parametrize("password", [None, "let-me-in"])
async def test_a_clients_certificate_is_all_that_it_needs(
    server: TlsServer, authority: Authority, password: str | None
) -> None:
    """Its key may be encrypted; both connections show it."""
    own = showing(authority.issue("carol", password=password))
    if password is not None:
        own["sslpassword"] = password
    async with Listener(server.dsn("carol", **own)) as listener:
        await delivers(listener)
        names = [session["client_dn"] for session in await server.sessions()]
    assert names == ["/CN=carol", "/CN=carol"]


async def test_without_a_certificate_the_server_refuses(server: TlsServer) -> None:
    """The message is the server's own."""
    await is_refused(server.dsn("carol", sslmode="require"), "valid client certificate")


async def test_a_certificate_of_another_name_is_refused(
    server: TlsServer, authority: Authority
) -> None:
    """It is a good one, and not the role's."""
    own = showing(authority.issue("bob"))
    await is_refused(server.dsn("carol", **own), "certificate authentication failed")


async def test_a_certificate_of_a_foreign_authority_is_refused(
    server: TlsServer, foreign: Authority
) -> None:
    """The server ends the handshake, and the reason is told."""
    await is_refused(server.dsn("carol", **showing(foreign.issue("carol"))), "(?i)unknown.ca")


async def test_a_clients_certificate_that_has_expired_is_refused(
    server: TlsServer, authority: Authority
) -> None:
    """The server ends the handshake, and the reason is told."""
    own = showing(authority.issue("carol", expired=True))
    await is_refused(server.dsn("carol", **own), "(?i)expired")


async def test_what_refuses_a_clients_certificate_is_told_of_callables_too(
    server: TlsServer, foreign: Authority
) -> None:
    """A ``connect=`` of the caller's ends the start at once, with the same reason."""
    own = foreign.issue("carol")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(own.certificate, own.key)
    connect = functools.partial(asyncpg.connect, server.dsn("carol"), ssl=context)
    with pytest.raises(ConnectError, match=r"(?i)unknown.ca"):
        await Listener(connect=connect, start_timeout=WAIT_LIMIT).start()


async def test_versions_of_tls_that_do_not_meet_are_refused(server: TlsServer) -> None:
    """Whichever side has the older one."""
    await server.execute("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.3'")
    await server.execute("SELECT pg_catalog.pg_reload_conf()")
    dsn = server.dsn("encrypted", sslmode="require", ssl_max_protocol_version="TLSv1.2")
    try:
        await is_refused(dsn, "(?i)protocol.version")
    finally:
        await server.execute("ALTER SYSTEM RESET ssl_min_protocol_version")


async def test_a_wrong_password_of_the_key_is_refused_and_not_told(
    server: TlsServer, authority: Authority
) -> None:
    """The message names the file."""
    own = showing(authority.issue("carol", password="let-me-in"), sslpassword="wr0ng")
    with pytest.raises(ConfigurationError, match=r"carol-\d+\.key") as caught:
        await Listener(server.dsn("carol", **own)).start()
    assert "wr0ng" not in str(caught.value)


# -- what the server demands ----------------------------------------------------------------------


async def test_a_password_over_tls_is_verified_by_scram(
    server: TlsServer, authority: Authority
) -> None:
    """As over a connection without TLS; a wrong one is refused at once."""
    options = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    async with Listener(server.dsn("alice", NAME, **options)) as listener:
        await delivers(listener)
    listener = Listener(server.dsn("alice", NAME, **options), password="wrong")
    with pytest.raises(ConnectError) as caught:
        await listener.start()
    assert isinstance(caught.value.__cause__, asyncpg.InvalidPasswordError)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
async def test_a_role_that_needs_tls_gets_in_where_the_mode_permits_it(
    server: TlsServer, mode: str
) -> None:
    """``allow`` begins without, is refused, and goes on with it."""
    dsn = server.dsn("encrypted", sslmode=mode)
    if mode == "disable":
        await is_refused(dsn, "no encryption|SSL off")
        return
    async with Listener(dsn) as listener:
        await delivers(listener)
        assert [session["ssl"] for session in await server.sessions()] == [True, True]


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
async def test_a_role_that_must_not_use_tls_gets_in_where_the_mode_permits_it(
    server: TlsServer, mode: str
) -> None:
    """``prefer`` begins with it, is refused, and goes on without."""
    dsn = server.dsn("unencrypted", sslmode=mode)
    if mode == "require":
        await is_refused(dsn, "SSL encryption|SSL on")
        return
    async with Listener(dsn) as listener:
        await delivers(listener)
        assert [session["ssl"] for session in await server.sessions()] == [False, False]


async def test_tls_may_begin_at_once(server: TlsServer, authority: Authority) -> None:
    """With ``sslnegotiation=direct``, from PostgreSQL 17 on; older servers end the connection."""
    options = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
    dsn = server.dsn("encrypted", NAME, sslnegotiation="direct", **options)
    if major_of(server.server.version) >= DIRECT_SINCE:
        async with Listener(dsn) as listener:
            await delivers(listener)
            assert [session["ssl"] for session in await server.sessions()] == [True, True]
        return
    with pytest.raises(ConnectError):
        await Listener(dsn, start_timeout=scaled(1.0)).start()


# -- certificates that change ---------------------------------------------------------------------


async def test_a_session_outlives_the_certificate_and_the_next_one_sees_the_new(
    server: TlsServer, authority: Authority
) -> None:
    """A server that is given a new certificate of the same authority costs no session."""
    dsn = server.dsn("encrypted", NAME, sslmode="verify-full", sslrootcert=authority.certificate)
    async with Listener(dsn) as listener:
        events = listener.events()
        await server.show(authority.issue("renewed", f"DNS:{NAME}"), authority.certificate)
        await delivers(listener)
        assert listener.stats().reconnects == 0
        await server.end_sessions()
        await until(events, Reconnected)
        await delivers(listener)


async def test_a_new_authority_is_followed_once_its_certificate_is_there(
    server: TlsServer, authority: Authority, foreign: Authority, tmp_path: Path
) -> None:
    """Until then the listener is degraded, and says what is wrong; no restart is needed."""
    roots = tmp_path / "roots.crt"
    shutil.copy(authority.certificate, roots)
    dsn = server.dsn("encrypted", NAME, sslmode="verify-full", sslrootcert=roots)
    listener = Listener(dsn, backoff=ExponentialBackoff(initial=0.01, cap=0.1))
    async with listener, listener.stream("orders", gaps=True) as stream:
        assert isinstance(await anext(stream), Gap)
        events = listener.events()
        await server.show(foreign.issue("server", f"DNS:{NAME}"), authority.certificate)
        await server.end_sessions()
        failed = await until(events, RetryScheduled)
        while not failed.needs_repair:
            failed = await until(events, RetryScheduled)
        assert "CERTIFICATE_VERIFY_FAILED" in str(failed.cause)
        assert listener.state is State.DEGRADED
        both = authority.certificate.read_bytes() + foreign.certificate.read_bytes()
        roots.write_bytes(both)
        await until(events, Reconnected)
        assert isinstance(await anext(stream), Gap)
        await listener.notify("orders", "news")
        assert isinstance(await anext(stream), Notification)


async def test_a_clients_new_certificate_is_shown_by_the_next_session(
    server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    """The files are read for each connection; the session that is open goes on."""
    files = Certificate(tmp_path / "carol.crt", tmp_path / "carol.key")

    def renew() -> None:
        renewed = authority.issue("carol")
        shutil.copy(renewed.certificate, files.certificate)
        shutil.copy(renewed.key, files.key)

    renew()
    async with Listener(server.dsn("carol", **showing(files))) as listener:
        events = listener.events()
        [before] = await server.sessions()
        renew()
        await listener.health()
        assert listener.stats().reconnects == 0
        await server.end_sessions()
        await until(events, Reconnected)
        [after] = await server.sessions()
    assert before["client_serial"] != after["client_serial"]


async def test_a_loss_under_tls_is_a_gap_and_is_repaired_under_tls(
    server: TlsServer, authority: Authority
) -> None:
    """A connection that the network resets is replaced by one that is verified again."""
    dsn = server.dsn("encrypted", sslmode="verify-full", sslrootcert=authority.certificate)
    async with (
        FaultProxy.for_dsn(dsn) as proxy,
        Listener(proxy.proxied_dsn(dsn)) as listener,
        listener.stream("orders", gaps=True) as stream,
    ):
        for _ in range(2):
            assert isinstance(await anext(stream), Gap)
            proxy.reset()
        assert isinstance(await anext(stream), Gap)
        await delivers(listener)
        assert all(session["ssl"] for session in await server.sessions())
