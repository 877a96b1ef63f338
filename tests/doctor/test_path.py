"""What is between a program and the server: poolers in each mode, names, TLS."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asyncnotify.doctor import Severity, diagnose
from asyncnotify.testing.proxy import FaultProxy
from asyncnotify.testing.server import BinariesNotFoundError, PostgresServer
from tests.doctor.findings import bad, of, one, text_of
from tests.support.certificates import Authority, Certificate
from tests.support.pgbouncer import PgBouncer, PoolMode
from tests.support.pgpool import pgpool
from tests.support.tls_server import TlsServer, tls_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(template: PostgresServer) -> Iterator[PostgresServer]:
    """A server to stand behind poolers."""
    with PostgresServer(template=template, settings={"unix_socket_directories": "."}) as server:
        yield server


@pytest.fixture(scope="module")
def pooler(server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in front of it."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(PgBouncer(server))
        except BinariesNotFoundError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
async def test_a_pooler_is_told_with_its_mode(pooler: PgBouncer, mode: PoolMode) -> None:
    """One in session mode is no fault; through another nothing arrives, and the cure says so."""
    pooler.restart(pool_mode=mode)
    report = await diagnose(pooler.dsn)
    if mode == "session":
        assert bad(report) == []
        assert "session mode" in one(report, "delivery", Severity.OK).title
    else:
        finding = one(report, "delivery", Severity.ERROR)
        assert "transaction or statement mode" in finding.title
        assert "pool_mode = session" in finding.cure
        assert report.exit_status == 1
    assert "pooler" in of(report, "path")[0].title
    if mode != "statement":  # which allows no transaction, so that little else can be asked
        assert {f.check for f in bad(report)} <= {"delivery"}


async def test_pgpool_is_told(server: PostgresServer) -> None:
    """By its own answer; notifications arrive through it."""
    with server.standby() as standby, pgpool(server, standby) as dsn:
        report = await diagnose(dsn)
    assert "Pgpool-II" in one(report, "path", Severity.INFO).title
    assert "arrived" in one(report, "delivery", Severity.OK).title
    assert bad(report) == []


async def test_what_forwards_is_told(server: PostgresServer) -> None:
    """A proxy that changes nothing is no fault."""
    async with FaultProxy.for_dsn(server.dsn) as proxy:
        report = await diagnose(proxy.proxied_dsn(server.dsn))
    assert bad(report) == []
    assert "forwards" in one(report, "path", Severity.INFO).title


async def test_a_unix_socket_comes_out_clean(server: PostgresServer) -> None:
    """A socket needs neither TLS nor keepalive."""
    folder = str(server.data_dir)
    report = await diagnose(host=folder, port=server.port, user="postgres", database="postgres")
    assert bad(report) == []


async def test_a_silent_address_is_told(server: PostgresServer) -> None:
    """Of several hosts: each attempt to connect waits for it."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        filling = [socket.socket() for _ in range(4)]
        try:
            for one_more in filling:
                one_more.setblocking(False)  # noqa: FBT003 - the socket's own argument
                one_more.connect_ex(silent.getsockname())
            hosts = f"127.0.0.1:{server.port},127.0.0.1:{silent.getsockname()[1]}"
            report = await diagnose(f"postgresql://postgres@{hosts}/postgres", timeout=3.0)
        finally:
            for one_more in filling:
                one_more.close()
    finding = one(report, "addresses", Severity.WARNING)
    assert "do not answer" in finding.title
    assert "silent" in text_of(finding)


async def test_a_name_that_leads_nowhere_is_told() -> None:
    """Beside the connection that there is not."""
    report = await diagnose("postgresql://postgres@no.such.host.invalid/postgres", timeout=3.0)
    assert "resolved" in one(report, "addresses", Severity.ERROR).title
    assert report.exit_status == 3


async def test_an_unencrypted_connection_over_a_network_is_told(server: PostgresServer) -> None:
    """With the cure; one within the machine is no fault."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.18.0.1", 9))  # UDP: nothing is sent
            address = str(probe.getsockname()[0])
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127."):
        pytest.skip("this machine has no address but its loopback")
    async with FaultProxy.for_dsn(server.dsn, host=address) as proxy:
        report = await diagnose(proxy.proxied_dsn(server.dsn))
    finding = one(report, "TLS", Severity.WARNING)
    assert "not encrypted" in finding.title
    assert "verify-full" in finding.cure
    assert of(report, "TLS") == bad(report)


async def test_a_certificate_near_its_end_is_told(template: PostgresServer, tmp_path: Path) -> None:
    """Before no listener reconnects; one within the machine needs no verifying."""
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("server", "IP:127.0.0.1")  # for two days
    async with in_thread(template, certificate, authority.certificate) as tls:
        verified = {"sslmode": "verify-full", "sslrootcert": authority.certificate}
        report = await diagnose(tls.dsn("encrypted", **verified), probe=False)
        finding = one(report, "TLS", Severity.WARNING)
        assert "certificate ends in" in finding.title
        assert report.exit_status == 5
        report = await diagnose(tls.dsn("encrypted", sslmode="require"), probe=False)
        assert "encrypted" in one(report, "TLS", Severity.OK).title


@asynccontextmanager
async def in_thread(
    template: PostgresServer, certificate: Certificate, clients: Path
) -> AsyncGenerator[TlsServer]:
    """Have a server with TLS, which is started without blocking the event loop."""
    context = tls_server(template, certificate, clients)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
