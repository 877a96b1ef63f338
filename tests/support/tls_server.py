"""A real server that speaks TLS itself, and changes its certificate while it runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import struct
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from asyncnotify.testing.server import PostgresServer, ServerStartError
from tests.support.machine import scaled
from tests.support.server_programs import cached_programs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator
    from pathlib import Path

    from tests.support.certificates import Certificate

PASSWORD = "correct-horse"
ADDRESS = "127.0.0.1"
ROLES = f"""
    CREATE ROLE alice LOGIN PASSWORD '{PASSWORD}';
    CREATE ROLE carol LOGIN;
    CREATE ROLE encrypted LOGIN;
    CREATE ROLE unencrypted LOGIN;
"""
RULES = (
    ("hostssl", "alice", "scram-sha-256"),
    ("hostssl", "carol", "cert"),
    ("hostssl", "encrypted", "trust"),
    ("hostnossl", "unencrypted", "trust"),
    *(("host", role, "reject") for role in ("alice", "carol", "encrypted", "unencrypted")),
)
SETTINGS = {
    "ssl": "on",
    "ssl_cert_file": "server.crt",
    "ssl_key_file": "server.key",
    "ssl_ca_file": "clients.crt",
}
WITH_TLS = "18"
NO_TLS = "SSL is not supported by this build"
WAIT_LIMIT = scaled(10.0)


class TlsServer:
    """
    A running server with TLS, and one role for each rule of it.

    ``alice`` needs TLS and a password, ``carol`` a certificate of her name, ``encrypted`` TLS and
    ``unencrypted`` that there is none; the superuser may do without any.
    """

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def dsn(self, user: str, host: str = ADDRESS, /, **options: object) -> str:
        """Return the URL of a connection to a host's name or address, with libpq's options."""
        secret = f":{PASSWORD}" if user == "alice" else ""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}{secret}@{host}:{self.server.port}/postgres?{query}"

    async def show(self, certificate: Certificate, clients: Path) -> None:
        """Show a certificate to who connects, and verify clients by an authority, from now on."""
        install(self.server, certificate, clients)
        await self.execute("SELECT pg_catalog.pg_reload_conf()")
        expected = ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text(encoding="ascii"))
        async with asyncio.timeout(WAIT_LIMIT):
            while await asyncio.to_thread(shown, self.server.port) != expected:  # noqa: ASYNC110 - it tells of no change
                await asyncio.sleep(0.01)  # polls: the server does not tell when it has read it

    async def sessions(self) -> list[dict[str, Any]]:
        """Return what the server knows of TLS in the sessions of asyncnotify."""
        query = """
            SELECT pid, usename, ssl, version, client_dn, client_serial
            FROM pg_catalog.pg_stat_ssl JOIN pg_catalog.pg_stat_activity USING (pid)
            WHERE application_name = 'asyncnotify' ORDER BY backend_start
        """
        async with self._root() as root:
            return [dict(row) for row in await root.fetch(query)]

    async def execute(self, query: str) -> None:
        """Execute statements as the superuser, without TLS."""
        async with self._root() as root:
            await root.execute(query)

    async def end_sessions(self) -> None:
        """End the sessions of asyncnotify."""
        await self.execute("""
            SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
            WHERE application_name = 'asyncnotify'
        """)

    @asynccontextmanager
    async def _root(self) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
        settings = {"application_name": "tests"}
        root = await asyncpg.connect(self.server.dsn, ssl=False, server_settings=settings)
        try:
            yield root
        finally:
            await root.close()


@contextmanager
def tls_server(
    template: PostgresServer, certificate: Certificate, clients: Path
) -> Generator[TlsServer]:
    """Have a server with TLS: of the template's programs, or of others, if these have no TLS."""
    for server in _candidates(template):
        try:
            server.initialise()
            install(server, certificate, clients)
            if _starts(server):
                made = TlsServer(server)
                asyncio.run(made.execute(ROLES))
                yield made
                return
        finally:
            server.close()
    pytest.skip(f"needs a PostgreSQL with TLS: python tests/support/server_programs.py {WITH_TLS}")


def _candidates(template: PostgresServer) -> Iterator[PostgresServer]:
    hba = [f"{kind} all {role} {ADDRESS}/32 {method}" for kind, role, method in RULES]
    yield PostgresServer(template=template, settings=SETTINGS, hba=hba)
    if bin_dir := cached_programs(WITH_TLS):
        yield PostgresServer(bin_dir=bin_dir, settings=SETTINGS, hba=hba)


def _starts(server: PostgresServer) -> bool:
    try:
        server.start()
    except ServerStartError as error:
        if NO_TLS in error.log_tail:
            return False
        raise
    return True


def install(server: PostgresServer, certificate: Certificate, clients: Path) -> None:
    """Put a certificate and the authority of its clients where the server reads them."""
    owner = server.data_dir.stat()
    files = {
        SETTINGS["ssl_cert_file"]: certificate.certificate,
        SETTINGS["ssl_key_file"]: certificate.key,
        SETTINGS["ssl_ca_file"]: clients,
    }
    for name, source in files.items():
        target = server.data_dir / name
        shutil.copyfile(source, target)
        target.chmod(0o600)
        os.chown(target, owner.st_uid, owner.st_gid)


def shown(port: int) -> bytes:
    """Return the certificate that the server shows, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((ADDRESS, port), timeout=WAIT_LIMIT) as plain:
        plain.sendall(struct.pack("!ii", 8, 80877103))
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain) as encrypted:
            return encrypted.getpeercert(binary_form=True) or b""
