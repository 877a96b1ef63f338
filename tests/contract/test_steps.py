"""What fails for good and what passes is judged by the step of connecting that failed."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    ConfigurationError,
    ConnectError,
    Keepalive,
    Listener,
    Notifier,
    Reconnected,
    RetryScheduled,
    State,
)
from asyncnotify._asyncpg import bounded
from tests.contract.fake_network import network_before
from tests.support.certificates import Certificate, make_certificate
from tests.support.machine import scaled
from tests.support.tls_front import TlsFront

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncnotify import EventStream

WAIT_LIMIT = scaled(10.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate whose key has no password."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "db.example")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Another one, whose key is encrypted."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "me.example", password="right")


# -- local files ----------------------------------------------------------------------------------


@pytest.mark.needs_server("tls")
@pytest.mark.parametrize(
    "options",
    [
        "sslmode=verify-full&sslrootcert=/nonesuch",
        "sslmode=require&sslrootcert={junk}",
        "sslmode=verify-ca&sslrootcert={crt}&sslcrl={junk}",
        "sslmode=require&sslcrl=/nonesuch",
        "sslmode=require&sslcrldir=/nonesuch",
        "sslmode=require&sslcert=/nonesuch&sslkey={key}",
        "sslmode=require&sslcert={crt}&sslkey=/nonesuch",
        "sslmode=require&sslcert={crt}&sslkey={locked_key}&sslpassword=right",
        "sslmode=require&sslcert={locked_crt}&sslkey={locked_key}&sslpassword=wr0ng",
        "sslmode=require&sslcert={locked_crt}&sslkey={locked_key}",
        "sslmode=require&sslcert={junk}&sslkey={key}",
        "sslmode=prefer&sslcert=/nonesuch",
    ],
)
async def test_r54_a_file_that_cannot_be_used_ends_the_start_and_is_named(
    dsn: str, tmp_path: Path, certificate: Certificate, locked: Certificate, options: str
) -> None:
    """In one attempt, for listeners and notifiers; the cause is what the file's reading raised."""
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    options = options.format(
        junk=junk,
        crt=certificate.certificate,
        key=certificate.key,
        locked_crt=locked.certificate,
        locked_key=locked.key,
    )
    for kind in (Listener, Notifier):
        with pytest.raises(ConfigurationError) as caught:
            await kind(f"{dsn}?{options}", start_timeout=WAIT_LIMIT).start()
        assert isinstance(caught.value.__cause__, OSError)
        assert any(name in str(caught.value) for name in ("/nonesuch", str(tmp_path), ".key"))
        assert "wr0ng" not in str(caught.value)


@pytest_asyncio.fixture
async def front(dsn: str, tmp_path: Path) -> AsyncIterator[TlsFront]:
    """TLS before the server, at ``port``."""
    parts = urlsplit(dsn)
    front = TlsFront(tmp_path, (str(parts.hostname), int(parts.port or 5432)), "localhost")
    await front.serve("127.0.0.1")
    yield front
    await front.close()


def through(front: TlsFront, dsn: str, options: str) -> str:
    """Return a DSN that leads through it."""
    parts = urlsplit(dsn)
    return f"postgresql://{parts.username}@localhost:{front.port}{parts.path}?{options}"


async def until(events: EventStream, kind: type) -> Any:
    """Return the next event of this kind."""
    async with asyncio.timeout(WAIT_LIMIT):
        while not isinstance(event := await anext(events), kind):
            pass
    return event


@pytest.mark.needs_server("tls")
async def test_r54_a_file_that_vanishes_later_is_degraded_and_comes_back(
    dsn: str, front: TlsFront, tmp_path: Path
) -> None:
    """It is read for each connection: a new one is followed, and one that is gone is told of."""
    roots, away = tmp_path / "roots.pem", tmp_path / "away.pem"
    shutil.copy(front.certificate.certificate, roots)
    listener = Listener(through(front, dsn, f"sslmode=verify-full&sslrootcert={roots}"))
    events = listener.events()
    async with listener:
        roots.rename(away)
        front.reset()
        failed = await until(events, RetryScheduled)
        assert failed.needs_repair
        assert str(roots) in str(failed.cause)
        assert listener.state is State.DEGRADED
        away.rename(roots)
        await until(events, Reconnected)


@pytest.mark.needs_server("tls")
async def test_r54_a_certificate_that_does_not_verify_ends_the_start(
    dsn: str, front: TlsFront, certificate: Certificate
) -> None:
    """It is the handshake that fails, and no network."""
    roots = certificate.certificate
    listener = Listener(through(front, dsn, f"sslmode=verify-full&sslrootcert={roots}"))
    with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
        await listener.start()


@pytest.mark.needs_server("tls")
@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_a_certificate_of_ones_own_is_shown_in_every_mode(
    dsn: str, front: TlsFront, certificate: Certificate, mode: str
) -> None:
    """Also in one that may do without TLS, for which the driver makes its own context."""
    front.ask_for(certificate)
    own = f"sslmode={mode}&sslcert={certificate.certificate}&sslkey={certificate.key}"
    async with Listener(through(front, dsn, own)):
        assert front.clients == [True]
    async with Listener(through(front, dsn, f"{own}&sslcertmode=disable")):
        assert front.clients == [True, False]


@pytest.mark.needs_server("tls")
async def test_ssl_may_be_a_callable(dsn: str, front: TlsFront) -> None:
    """It is asked for each connection, and may be async; what it returns is what ``ssl=`` takes."""
    asked: list[object] = []

    async def mode() -> str:
        asked.append(len(asked))
        return "require"

    async with Listener(through(front, dsn, "sslmode=disable"), ssl=mode) as listener:
        await listener.notify("orders")
    assert len(asked) == len(front.names) == 2


@pytest.mark.needs_server("tls")
async def test_r54_an_ssl_callable_follows_a_renewed_authority(
    dsn: str, front: TlsFront, certificate: Certificate, tmp_path: Path
) -> None:
    """What it raises is the failure of a local file: told at once, later degraded."""
    roots = tmp_path / "roots.pem"
    shutil.copy(front.certificate.certificate, roots)

    def trust() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(roots))

    for kind in (Listener, Notifier):
        with pytest.raises(ConfigurationError, match=r"FileNotFoundError at .*/nonesuch"):
            await kind(through(front, dsn, ""), ssl=lambda: open("/nonesuch")).start()  # noqa: SIM115, PTH123 - raises
    listener = Listener(through(front, dsn, ""), ssl=trust)
    events = listener.events()
    async with listener:
        roots.write_text("being written")
        front.reset()
        failed = await until(events, RetryScheduled)
        assert failed.needs_repair
        assert "the ssl callable raised SSLError" in str(failed.cause)
        assert listener.state is State.DEGRADED
        shutil.copy(certificate.certificate, roots)  # of another authority
        while "verify failed" not in str((await until(events, RetryScheduled)).cause):
            pass
        shutil.copy(front.certificate.certificate, roots)
        await until(events, Reconnected)


@pytest.mark.needs_server("tls")
@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), ConnectError("later")])
async def test_r54_an_ssl_callable_may_ask_a_service(dsn: str, error: Exception) -> None:
    """What a network does to it passes, and is tried again."""
    answers = [error]

    async def ask() -> bool:
        if answers:
            raise answers.pop()
        return False

    async with Listener(dsn, ssl=ask) as listener:
        assert listener.is_connected


@pytest.mark.parametrize("kind", [Listener, BlockingListener, Notifier, BlockingNotifier])
def test_r48_what_cannot_be_asked_for_tls_is_refused_at_once(kind: Any) -> None:
    """A function that takes arguments or never runs, a class, and a server's context."""

    def asks(_host: str) -> bool:
        return True

    def never_runs() -> Iterator[bool]:
        yield True

    for function in (asks, never_runs, int):
        with pytest.raises(TypeError, match="ssl"):
            kind("postgresql://db", ssl=function)
    with pytest.raises(ConfigurationError, match="not of a server"):
        kind("postgresql://db", ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


# -- the caller's callables -----------------------------------------------------------------------


@pytest.mark.needs_server("driver")
@pytest.mark.parametrize("argument", ["connect", "password"])
@pytest.mark.parametrize("error", [json.JSONDecodeError("no", "", 0), TypeError(), KeyError("k")])
async def test_r54_what_a_callable_raises_is_tried_again(
    dsn: str, argument: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A token service that answers nonsense for a while is weather; the log says what and where."""
    answers: list[Exception] = [error, error]

    async def call() -> Any:
        if answers:
            raise answers.pop()
        if argument == "connect":
            return await asyncpg.connect(dsn, server_settings={"application_name": "asyncnotify"})
        return "s3cret"

    arguments: dict[str, Any] = {argument: call}
    source = () if argument == "connect" else (dsn,)
    async with Listener(*source, **arguments) as listener:
        assert listener.is_connected
    told = [record for record in caplog.records if type(error).__name__ in record.getMessage()]
    assert told[0].levelno == logging.WARNING
    assert "test_steps.py" in told[0].getMessage()


@pytest.mark.needs_server("driver")
@pytest.mark.parametrize("argument", ["connect", "password"])
async def test_r54_what_a_callable_declares_permanent_ends_the_start(
    dsn: str, argument: str
) -> None:
    """By raising ConfigurationError, or with what the server has refused."""
    refusals = [ConfigurationError("no such tenant"), asyncpg.InvalidPasswordError("no")]
    for refusal in refusals:

        async def call(refusal: Exception = refusal) -> Any:
            raise refusal

        arguments: dict[str, Any] = {argument: call}
        source = () if argument == "connect" else (dsn,)
        with pytest.raises(ConnectError) as caught:
            await Listener(*source, **arguments).start()
        error = caught.value if isinstance(refusal, ConfigurationError) else caught.value.__cause__
        assert type(error) is type(refusal)
        assert str(refusal) in str(caught.value)


# -- programming errors, and connections that die at once -----------------------------------------


@pytest.mark.parametrize("kind", [Listener, Notifier])
@pytest.mark.parametrize("keepalive", [3, True, "on", Keepalive])
def test_r48_a_keepalive_of_another_type_is_refused_at_once(kind: Any, keepalive: Any) -> None:
    """In the constructor."""
    with pytest.raises(TypeError, match="keepalive must be a Keepalive or None"):
        kind("postgresql://db", keepalive=keepalive)


@pytest.mark.needs_server("driver")
async def test_r54_a_defect_of_ours_is_raised_at_once_with_its_traceback(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start; later it is degraded, and in the log at ERROR, once."""
    defect = AttributeError("no such attribute")

    def fail(*_: object) -> None:
        raise defect

    listener = Listener(dsn)
    with monkeypatch.context() as broken:
        broken.setattr(bounded, "keep_alive", fail)
        with pytest.raises(ConnectError) as caught:
            await listener.start()
        assert caught.value.__cause__ is defect
        assert defect.__traceback__ is not None
    async with listener:
        events = listener.events()
        caplog.clear()
        with monkeypatch.context() as broken:
            broken.setattr(bounded, "keep_alive", fail)
            killer = await asyncpg.connect(dsn)
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await killer.close()
            await until(events, RetryScheduled)
            assert listener.state is State.DEGRADED
        [told] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert told.exc_info is not None
        assert told.exc_info[1] is defect
        await until(events, Reconnected)


async def test_r54_a_connection_that_dies_right_after_the_handshake_is_weather(dsn: str) -> None:
    """On any event loop, whatever that makes of the socket: another one is made."""
    async with network_before(dsn) as proxy:
        for _ in range(5):
            ready = proxy.detect(b"Z\0\0\0\5I", "to_client")
            listener = Listener(proxy.proxied_dsn(dsn))
            starting = asyncio.create_task(listener.start())
            await ready.wait()
            proxy.reset()
            await starting
            await listener.aclose()
