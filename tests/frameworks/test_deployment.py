"""What the pages on deployment show runs: the worker with its probes, the manifest, the unit."""

from __future__ import annotations

import asyncio
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from asyncnotify import Notifier
from asyncnotify.testing.proxy import FaultProxy
from tests.support.asgi_servers import DEADLINE, WebServer, serving
from tests.support.web_servers import write_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

PAGES: Final = Path(__file__).parents[2] / "docs" / "deployment"
WORKER: Final = "orders_worker"
PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the worker."""
    write_files("deployment/kubernetes.md", tmp_path, r"orders_worker\.py")
    return tmp_path


def worker(folder: Path, dsn: str) -> AbstractContextManager[WebServer]:
    """Run the worker from its folder, also where Python looks for no modules in there."""
    return serving(folder, WORKER, DATABASE_URL=dsn, PYTHONSAFEPATH="")


def shown(page: str, language: str) -> str:
    """Return the one block of a page that is in a language."""
    text = (PAGES / page).read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found: str = block
    return found


async def status(server: WebServer, request: str) -> int:
    """Return the status of an answer; 0 while nobody listens."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except OSError:
        return 0
    writer.write(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


async def until_status(server: WebServer, request: str, wanted: int) -> None:
    """Return once this is the answer."""
    async with asyncio.timeout(DEADLINE):
        while await status(server, request) != wanted:
            assert server.process.poll() is None, server.output
            await asyncio.sleep(0.02)  # it tells nobody


async def test_only_readiness_depends_on_the_database(dsn: str, folder: Path) -> None:
    """Without a database the worker is alive and not ready, and ready again once it is back."""
    async with FaultProxy.for_dsn(dsn) as proxy:
        with worker(folder, proxy.proxied_dsn(dsn)) as server:
            await until_status(server, "GET /ready", 200)
            assert await status(server, "GET /live") == 200
            assert await status(server, "GET /other") == 503
            proxy.refuse()
            proxy.reset()
            await until_status(server, "GET /ready", 503)
            assert await status(server, "GET /live") == 200
            proxy.heal()
            await until_status(server, "GET /ready", 200)


async def test_sigterm_ends_the_worker_with_what_it_has(dsn: str, folder: Path) -> None:
    """It is still able to print what had arrived, and ends with a good status."""
    with worker(folder, dsn) as server:
        await until_status(server, "GET /ready", 200)
        async with Notifier(dsn) as notifier:
            await notifier.notify("orders", "42")
        await server.until_said("order 42")
        server.terminate()
        assert await server.ended() == 0
        assert "Traceback" not in server.output


async def test_sigterm_ends_a_worker_that_still_connects(dsn: str, folder: Path) -> None:
    """It waits for a database as long as it takes, but not when it is told to end."""
    async with FaultProxy.for_dsn(dsn) as proxy:
        proxy.refuse()
        with worker(folder, proxy.proxied_dsn(dsn)) as server:
            await until_status(server, "GET /live", 200)
            assert await status(server, "GET /ready") == 503
            server.terminate()
            assert await server.ended() == 0
            assert "Traceback" not in server.output


def pods() -> Iterator[dict[str, Any]]:
    """Yield what the manifest says of its pods."""
    yaml = pytest.importorskip("yaml")
    for document in yaml.safe_load_all(shown("kubernetes.md", "yaml")):
        yield document["spec"]["template"]["spec"]


def test_the_manifest_asks_what_the_worker_answers() -> None:
    """Each probe asks for a path that the worker knows; only readiness asks for /ready."""
    for pod in pods():
        (container,) = pod["containers"]
        paths = [container[probe]["httpGet"]["path"] for probe in PROBES]
        assert paths == ["/live", "/live", "/ready"]
        assert container[PROBES[0]]["httpGet"]["port"] == container["ports"][0]["name"]


def test_the_grace_period_is_long_enough(folder: Path) -> None:
    """What happens between the decision to stop a pod and its end takes less than is allowed."""
    source = (folder / f"{WORKER}.py").read_text(encoding="utf-8")
    (close_timeout,) = re.findall(r"close_timeout=(\d+)", source)
    for pod in pods():
        (container,) = pod["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command[0] == "sleep"
        needed = int(command[1]) + int(close_timeout)
        assert needed < pod["terminationGracePeriodSeconds"]


def test_the_unit_is_accepted(tmp_path: Path) -> None:
    """systemd finds nothing to complain of, once the interpreter is one that is there."""
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd-analyze")
    text = shown("workers.md", "ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(text)
    program = unit["Service"]["ExecStart"].split()[0]
    file = tmp_path / "orders.service"
    file.write_text(text.replace(program, sys.executable), encoding="utf-8")
    run = subprocess.run(
        [analyze, "verify", "--recursive-errors=no", str(file)],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE,
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, "")
