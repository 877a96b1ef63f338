"""TLS: the context for a connection; and whether a connection is encrypted and verified."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncnotify._asyncpg._parameters.files import home_file
from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import asyncpg

_ALPN: Final = ["postgresql"]

_FILES: Final = {
    "sslrootcert": "root.crt",
    "sslcrl": "root.crl",
    "sslcert": "postgresql.crt",
    "sslkey": "postgresql.key",
}
"""Where each file is if it is not given: in the folder ``.postgresql`` of the user's home."""


class Encryption(NamedTuple):
    """
    What the driver is told about TLS.

    Attributes:
        argument: For its ``ssl``: a context, a mode that may do without TLS, or False.
        context: With which TLS is begun, if it is: the driver's own one for such a mode knows
            nothing of a DSN.
    """

    argument: ssl.SSLContext | str | bool
    context: ssl.SSLContext | None = None


def check_ssl(value: object) -> None:
    """
    Refuse a context with which no client can begin TLS; other values are checked where they count.

    Raises:
        ConfigurationError: It is a server's.
    """
    if isinstance(value, ssl.SSLContext) and value.protocol is ssl.PROTOCOL_TLS_SERVER:
        msg = "ssl must be a context of a client, not of a server (ssl.Purpose.SERVER_AUTH)"
        raise ConfigurationError(msg)


def make_context(options: Mapping[str, str], mode: str) -> ssl.SSLContext:
    """
    Return the context for one of libpq's SSL modes. Reads the files that are named or are there.

    Raises:
        ConfigurationError: One of the files cannot be read, or is not what it should be; which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if mode.startswith("verify") else ssl.CERT_NONE
    if mode not in {"allow", "prefer"}:
        _load_roots(context, options, mode)
        _load_revoked(context, options)
    if options.get("sslcertmode") != "disable":
        _load_own_certificate(context, options)
    _set_versions(context, options)
    set_alpn(context)
    if log := os.environ.get("SSLKEYLOGFILE"):
        _read("SSLKEYLOGFILE", log, lambda: setattr(context, "keylog_filename", log))
    return context


def default_context() -> ssl.SSLContext:
    """Return the context for ``ssl=True``: the system's roots, and all is verified."""
    context = ssl.create_default_context()
    set_alpn(context)
    return context


def set_alpn(context: ssl.SSLContext) -> None:
    """Name the protocol: servers from 17 on demand it where TLS begins at once."""
    if ssl.HAS_ALPN:
        context.set_alpn_protocols(_ALPN)


def _file(name: str, options: Mapping[str, str]) -> str | None:
    """Return the path of a file that is given, or is where it is by default; else None."""
    if given := options.get(name):
        return given
    default = home_file(_FILES[name]) if name in _FILES else None
    return str(default) if default is not None and default.exists() else None


def _load_roots(context: ssl.SSLContext, options: Mapping[str, str], mode: str) -> None:
    roots = _file("sslrootcert", options)
    if roots == "system":
        context.load_default_certs()
    elif roots is not None:
        _read("sslrootcert", roots, lambda: context.load_verify_locations(cafile=roots))
    elif mode != "require":
        msg = (
            f"sslmode={mode} needs the certificate of the authority that signed the server's:"
            " sslrootcert= names its file, and is ~/.postgresql/root.crt by default, which is not"
            " there; sslrootcert=system stands for the authorities that this system trusts"
        )
        raise ConfigurationError(msg)
    if roots is not None:
        context.verify_mode = ssl.CERT_REQUIRED


def _load_revoked(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    revoked, folder = _file("sslcrl", options), options.get("sslcrldir") or None
    if revoked is not None:
        _read("sslcrl", revoked, lambda: context.load_verify_locations(cafile=revoked))
    if folder is not None:
        _read("sslcrldir", folder, lambda: list(Path(folder).iterdir()))
        context.load_verify_locations(capath=folder)
    if revoked is not None or folder is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load_own_certificate(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    certificate, key = _file("sslcert", options), _file("sslkey", options)
    if certificate is None:
        return
    for name, path in (("sslcert", certificate), ("sslkey", key)):
        if path is not None:
            _read(name, path, Path(path).read_bytes)
    password = options.get("sslpassword", "")
    what = f"{certificate}, with the key in {key or 'the same file'}"
    _read("sslcert", what, lambda: context.load_cert_chain(certificate, key, lambda: password))


def _read(name: str, path: str, load: Callable[[], object]) -> None:
    """Load a file, or raise ConfigurationError by its name."""
    try:
        load()
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        msg = f"{name}: {path}: {_reason(error)}"
        raise ConfigurationError(msg) from error


_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "BAD_DECRYPT": "the key cannot be decrypted with sslpassword",
    "BAD_PASSWORD_READ": "the key is encrypted, and sslpassword is not given",
    "NO_START_LINE": "holds no certificate or key in PEM",
    "NO_CERTIFICATE_OR_CRL_FOUND": "holds no certificate in PEM",
}


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").upper().replace(" ", "_")
        return _REASONS.get(reason, f"cannot be used: {reason or 'no certificate or key in PEM'}")
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _set_versions(context: ssl.SSLContext, options: Mapping[str, str]) -> None:
    lowest = options.get("ssl_min_protocol_version") or "tlsv1.2"
    context.minimum_version = _version(lowest)
    if highest := options.get("ssl_max_protocol_version"):
        context.maximum_version = _version(highest)


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace("tlsv", "TLSv").replace(".", "_")]


def tls_weakness(connection: asyncpg.Connection[Any]) -> str | None:
    """Return what is insecure about a connection over a network, and the remedy; else None."""
    transport = getattr(connection, "_transport", None)
    if transport is None or _is_local(transport.get_extra_info("socket")):
        return None
    encryption = transport.get_extra_info("ssl_object")
    if encryption is None:
        return (
            "is not encrypted: anyone on the path can read and forge notifications; use"
            " sslmode=verify-full"
        )
    if encryption.context.verify_mode is ssl.CERT_NONE:
        return (
            "is encrypted, but the server's certificate is not verified: anyone on the path can"
            " pose as the server; use sslmode=verify-full"
        )
    if not encryption.context.check_hostname:
        return (
            "is encrypted, but the name in the server's certificate is not verified: anyone on the"
            " path who has some certificate of the same authority can pose as the server; use"
            " sslmode=verify-full"
        )
    return None


def _is_local(sock: socket.socket | None) -> bool:
    """Return whether the connection stays on this machine, or this is not known."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        address = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
    except (OSError, ValueError):
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
