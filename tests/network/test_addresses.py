"""Names with several addresses: one that is dead delays by little, wherever it comes from."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import create_async_engine

from asyncnotify import ConfigurationError, ConnectTimeoutError, Listener, Notifier
from asyncnotify.testing.proxy import FaultProxy
from tests.network.observed_listener import Stopwatch
from tests.support.addresses import resolving, unanswered
from tests.support.machine import scaled
from tests.support.tls_front import TlsFront

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs all of 127.0.0.0/8, and a full queue that swallows"
)

LIVE, DEAD, DEAD_TOO = "127.0.0.1", "127.0.0.2", "127.0.0.3"
STAGGER = 0.25
CONNECT_TIMEOUT = scaled(1.0)


@pytest_asyncio.fixture
async def proxy(dsn: str) -> AsyncIterator[FaultProxy]:
    """A way to the server, at the address that lives."""
    async with FaultProxy.for_dsn(dsn, host=LIVE) as proxy:
        yield proxy


def named(proxy: FaultProxy, dsn: str, *hosts: str) -> str:
    """Return a DSN with these hosts, all at the proxy's port."""
    parts = urlsplit(proxy.proxied_dsn(dsn))
    hosts_with_port = ",".join(f"{host}:{proxy.port}" for host in hosts)
    return f"postgresql://{parts.username}@{hosts_with_port}{parts.path}"


async def test_r52_a_dead_address_of_a_name_delays_by_a_quarter_of_a_second(
    proxy: FaultProxy, dsn: str
) -> None:
    """The next address is tried beside it (RFC 8305), at the start and for the notifier."""
    with resolving(two_example=[DEAD, LIVE]), unanswered(DEAD, proxy.port):
        began = Stopwatch()
        async with Listener(named(proxy, dsn, "two.example")) as listener:
            assert STAGGER <= began.seconds < STAGGER + scaled(1.0)
            await listener.notify("orders")


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_r52_ipv6_that_leads_nowhere_does_not_keep_from_ipv4(
    proxy: FaultProxy, dsn: str
) -> None:
    """The kind that is found in the wild: the name has both, and one family is not routed."""
    try:
        nowhere = unanswered("::1", proxy.port)
        with resolving(both_example=["::1", LIVE]), nowhere:
            async with Listener(
                named(proxy, dsn, "both.example"), start_timeout=scaled(3.0)
            ) as listener:
                assert listener.is_connected
    except OSError as error:
        if isinstance(error, ConnectTimeoutError):
            raise
        pytest.skip(f"no IPv6 here: {error}")


async def test_r52_an_address_that_accepts_and_is_silent_has_its_own_deadline(
    proxy: FaultProxy, dsn: str
) -> None:
    """It wins the race, and does not say a word: the next address has all of its time."""
    async with FaultProxy.for_dsn(dsn, host=DEAD, port=proxy.port) as silent:
        silent.silent()
        with resolving(two_example=[DEAD, LIVE]):
            listener = Listener(named(proxy, dsn, "two.example"), connect_timeout=CONNECT_TIMEOUT)
            began = Stopwatch()
            async with listener:
                assert CONNECT_TIMEOUT <= began.seconds < CONNECT_TIMEOUT + scaled(1.0)


async def test_r52_an_engine_with_two_hosts_has_a_deadline_for_each(
    proxy: FaultProxy, dsn: str
) -> None:
    """The first is silent: the second serves, for listeners and notifiers of that engine."""
    user, database = urlsplit(dsn).username, urlsplit(dsn).path
    hosts = f"?host={DEAD}:{proxy.port}&host={LIVE}:{proxy.port}"
    engine = create_async_engine(f"postgresql+asyncpg://{user}@{database}{hosts}")
    with unanswered(DEAD, proxy.port):
        for kind in (Listener, Notifier):
            began = Stopwatch()
            made: Any = kind.from_sqlalchemy(engine, connect_timeout=CONNECT_TIMEOUT)
            async with made:
                assert CONNECT_TIMEOUT <= began.seconds < CONNECT_TIMEOUT + scaled(1.0)
    await engine.dispose()


async def test_r52_the_start_reaches_every_host(proxy: FaultProxy, dsn: str) -> None:
    """Its time is shared among them: the last one is tried before it is over."""
    with unanswered(DEAD, proxy.port), unanswered(DEAD_TOO, proxy.port):
        hosts = named(proxy, dsn, DEAD, DEAD_TOO, LIVE)
        async with Listener(hosts, start_timeout=scaled(2.0)) as listener:
            assert listener.is_connected


async def test_r52_the_error_names_every_address_and_why(proxy: FaultProxy, dsn: str) -> None:
    """One that refuses, one that is silent, a name that is not known."""
    proxy.refuse()
    with resolving(two_example=[DEAD, LIVE]), unanswered(DEAD, proxy.port):
        hosts = named(proxy, dsn, "two.example", "nowhere.invalid")
        listener = Listener(hosts, connect_timeout=scaled(0.5), start_timeout=scaled(1.5))
        with pytest.raises(ConnectTimeoutError) as caught:
            await listener.start()
    said = str(caught.value)
    assert f"two.example:{proxy.port} ({DEAD}:{proxy.port}): TimeoutError: no answer" in said
    assert f"two.example:{proxy.port} ({LIVE}:{proxy.port}): ConnectionRefusedError" in said
    assert f"nowhere.invalid:{proxy.port}: gaierror" in said


# -- TLS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["verify-full", "verify-full direct", "require", "prefer"])
async def test_r52_tls_knows_the_name_although_an_address_is_connected_to(
    dsn: str, tmp_path: Path, mode: str
) -> None:
    """The certificate is verified against the name, and the server is told the name."""
    parts = urlsplit(dsn)
    front = TlsFront(tmp_path, (str(parts.hostname), int(parts.port or 5432)), "db.example")
    mode, _, direct = mode.partition(" ")
    port = await front.serve(LIVE, direct=bool(direct))
    options = f"?sslmode={mode}&sslnegotiation={direct or 'postgres'}"
    if mode == "verify-full":
        options += f"&sslrootcert={front.certificate.certificate}"

    def at(host: str) -> str:
        return f"postgresql://{parts.username}@{host}:{port}{parts.path}{options}"

    with resolving(db_example=[DEAD, LIVE], other_example=[LIVE]), unanswered(DEAD, port):
        async with Listener(at("db.example")) as listener, listener.stream("orders") as stream:
            await listener.notify("orders", "1")
            assert (await anext(stream)).payload == "1"
        assert set(front.names) == {"db.example"}
        if mode == "verify-full":
            with pytest.raises(ConfigurationError, match=r"other\.example"):
                await Listener(at("other.example")).start()
    await front.close()


async def test_canary_the_driver_connects_by_the_loop_that_it_is_given(dsn: str) -> None:
    """It asks ``create_connection`` for a host and a port, and keeps the real loop afterwards."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(dsn)
    asked: list[tuple[Any, ...]] = []

    class Loop:
        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

        async def create_connection(self, factory: Any, *place: Any, **options: Any) -> Any:
            asked.append(place)
            return await loop.create_connection(factory, *place, **options)

    ours: Any = Loop()
    connection = await asyncpg.connect(dsn, loop=ours, ssl=False)
    assert asked == [(parts.hostname, parts.port)]
    assert hasattr(connection, "_loop")
    await connection.close()
