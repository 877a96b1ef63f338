from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncnotify._asyncpg._connecting.tls import make_context, tls_weakness
from asyncnotify._errors import ConfigurationError
from tests.support.certificates import Certificate, make_certificate

if TYPE_CHECKING:
    from pathlib import Path


def connection_to(
    peer: tuple[Any, ...], verify: ssl.VerifyMode | None, *, name: bool = True
) -> Any:
    """Return what is looked at of a connection; None: it has no TLS."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    context = None if verify is None else SimpleNamespace(verify_mode=verify, check_hostname=name)
    extras = {
        "socket": SimpleNamespace(family=family, getpeername=lambda: peer),
        "ssl_object": context and SimpleNamespace(context=context),
    }
    return SimpleNamespace(_transport=SimpleNamespace(get_extra_info=extras.get))


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::1%eth0"])
def test_tls_that_verifies_nothing_is_weak(peer: str) -> None:
    """Encryption alone does not say who is at the other end; a verified certificate does."""
    unverified = tls_weakness(connection_to((peer, 5432), ssl.CERT_NONE))
    assert "is not verified" in (unverified or "")
    assert tls_weakness(connection_to((peer, 5432), ssl.CERT_REQUIRED)) is None
    assert "is not encrypted" in (tls_weakness(connection_to((peer, 5432), None)) or "")
    nameless = tls_weakness(connection_to((peer, 5432), ssl.CERT_REQUIRED, name=False))
    assert "the name in the server's certificate is not verified" in (nameless or "")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_the_loopback_is_no_network(peer: str) -> None:
    """Nor is a Unix socket, nor a transport that does not tell."""
    assert tls_weakness(connection_to((peer, 5432), None)) is None
    assert tls_weakness(cast("Any", SimpleNamespace())) is None


def test_a_socket_that_does_not_tell_its_peer_is_no_network() -> None:
    """It is closed by now, or led through something that has no addresses of the internet."""

    def refuse() -> None:
        raise OSError

    connection = connection_to(("192.0.2.7", 5432), None)
    for getpeername in (refuse, lambda: ("somewhere", 5432)):
        connection._transport.get_extra_info("socket").getpeername = getpeername  # noqa: SLF001 - as asyncpg
        assert tls_weakness(connection) is None


@pytest.mark.parametrize("sock", [None, SimpleNamespace(family=socket.AF_UNIX)])
def test_what_is_not_of_the_internet_is_no_network(sock: object) -> None:
    """A Unix socket, or a transport that has none: nothing leaves the machine."""
    connection = connection_to(("192.0.2.7", 5432), None)
    extras = {"socket": sock, "ssl_object": None}
    connection._transport.get_extra_info = extras.get  # noqa: SLF001 - as asyncpg
    assert tls_weakness(connection) is None


# -- contexts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "db.example")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's files for TLS, which is empty."""
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.mark.parametrize(
    ("mode", "verified", "named"),
    [
        ("allow", False, False),
        ("prefer", False, False),
        ("require", False, False),
        ("verify-ca", True, False),
        ("verify-full", True, True),
    ],
)
def test_each_mode_verifies_what_libpq_does(
    certificate: Certificate, home: Path, mode: str, *, verified: bool, named: bool
) -> None:
    """Those that need the certificate of who has signed refuse to do without it."""
    roots = {"sslrootcert": str(certificate.certificate)} if verified else {}
    context = make_context(roots, mode)
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verified, named)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    if verified:
        with pytest.raises(ConfigurationError, match="sslrootcert"):
            make_context({}, mode)


def test_the_users_own_files_are_found(certificate: Certificate, home: Path) -> None:
    """With the root's certificate there, ``require`` verifies as ``verify-ca`` does."""
    (home / "root.crt").write_bytes(certificate.certificate.read_bytes())
    (home / "postgresql.crt").write_bytes(certificate.certificate.read_bytes())
    (home / "postgresql.key").write_bytes(certificate.key.read_bytes())
    context = make_context({}, "require")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname
    (home / "postgresql.key").write_text("no key")
    with pytest.raises(ConfigurationError, match=r"postgresql\.key"):
        make_context({}, "require")
    assert make_context({"sslcertmode": "disable"}, "require") is not context


def test_a_certificate_may_bring_its_key(
    certificate: Certificate, home: Path, tmp_path: Path
) -> None:
    """In one file, where no other is named; the error says where the key was looked for."""
    file = tmp_path / "both.pem"
    file.write_bytes(certificate.certificate.read_bytes())
    with pytest.raises(ConfigurationError, match="with the key in the same file"):
        make_context({"sslcert": str(file)}, "require")
    file.write_bytes(certificate.certificate.read_bytes() + certificate.key.read_bytes())
    make_context({"sslcert": str(file)}, "require")


def test_the_secrets_of_sessions_are_logged_where_the_environment_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by any client of TLS, for who looks at the traffic; a file that cannot be is an error."""
    file = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    assert make_context({}, "require").keylog_filename == str(file)
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))
    with pytest.raises(ConfigurationError, match="SSLKEYLOGFILE"):
        make_context({}, "require")


def test_the_systems_authorities_and_versions_may_be_asked_for(home: Path) -> None:
    """``sslrootcert=system`` needs no file; versions of TLS are bounded on both sides."""
    options = {
        "sslrootcert": "system",
        "ssl_min_protocol_version": "tlsv1.3",
        "ssl_max_protocol_version": "tlsv1.3",
    }
    context = make_context(options, "verify-full")
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_3


def test_lists_of_revoked_certificates_are_checked(
    certificate: Certificate, home: Path, tmp_path: Path
) -> None:
    """In a file or in a folder; that of the user's is taken if it is there."""
    roots = {"sslrootcert": str(certificate.certificate)}
    assert not make_context(roots, "verify-ca").verify_flags & ssl.VERIFY_CRL_CHECK_CHAIN
    context = make_context({**roots, "sslcrldir": str(tmp_path)}, "verify-ca")
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_CHAIN
