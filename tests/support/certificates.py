"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """A certificate, and its key."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server that shows it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Authority:
    """Signs certificates; its own one is what verifies them."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._own = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        may_sign = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        made = ("-keyout", str(self._own.key), "-out", str(self._own.certificate))
        _openssl(
            "req", "-x509", *_NEW_KEY, "-nodes", "-days", "2", *_subject(name), *may_sign, *made
        )

    @property
    def certificate(self) -> Path:
        """The file of its own certificate."""
        return self._own.certificate

    def issue(
        self, name: str, *hosts: str, password: str | None = None, expired: bool = False
    ) -> Certificate:
        """
        Return a new certificate for a name, and for hosts such as ``DNS:db.example``.

        With a password its key is encrypted.
        """
        made = self._file(name)
        request = made.certificate.with_suffix(".csr")
        secrecy = ["-nodes"] if password is None else ["-passout", f"pass:{password}"]
        asked = (*secrecy, *_subject(name), "-keyout", str(made.key), "-out", str(request))
        _openssl("req", "-new", *_NEW_KEY, *asked)
        extensions = made.certificate.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={','.join(hosts or ('DNS:none.example',))}")
        signer = ("-CA", str(self._own.certificate), "-CAkey", str(self._own.key))
        valid = _ago() if expired else ("-days", "2")
        files = ("-extfile", str(extensions), "-in", str(request), "-out", str(made.certificate))
        _openssl("x509", "-req", *signer, "-CAcreateserial", *valid, *files)
        return made

    def _file(self, name: str) -> Certificate:
        number = len(list(self._folder.iterdir()))
        stem = self._folder / f"{name}-{number}"
        return Certificate(stem.with_suffix(".crt"), stem.with_suffix(".key"))


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def _subject(name: str) -> tuple[str, str]:
    return "-subj", f"/CN={name}"


def _ago() -> tuple[str, ...]:
    """Return a time that is over, as this openssl takes it."""
    if "-not_after" in _openssl("x509", "-help"):  # since 3.4, which takes no negative days
        return "-not_before", "20200101000000Z", "-not_after", "20200102000000Z"
    return "-days", "-1"


def _openssl(*arguments: str) -> str:
    """Run openssl, and return what it says; skip the test where there is none."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl, to make certificates")
    done = subprocess.run([openssl, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def make_certificate(folder: Path, host: str, *, password: str | None = None) -> Certificate:
    """Make a certificate for a host's name; skip the test where there is no openssl."""
    made = Certificate(folder / f"{host}.crt", folder / f"{host}.key")
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-days", "2", *_subject(host)]
    arguments += ["-addext", f"subjectAltName=DNS:{host}"]
    arguments += ["-out", str(made.certificate), "-keyout", str(made.key)]
    arguments += ["-nodes"] if password is None else ["-passout", f"pass:{password}"]
    _openssl(*arguments)
    return made
