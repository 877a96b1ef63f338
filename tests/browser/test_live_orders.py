"""The live page in a real browser, while its PostgreSQL and its web server are taken away."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify.testing.server import PostgresServer
from tests.support.log_removal import remove_logs
from tests.support.machine import scaled
from tests.support.ports import kept_port
from tests.support.services import ENVIRONMENT

pytest.importorskip("playwright", reason="needs Playwright: the dependency group `browser`")

from playwright.async_api import Browser, Page, expect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

APP: Final = Path(__file__).parents[2] / "examples" / "live_orders" / "app.py"
SHOWN_WITHIN: Final = scaled(15_000)  # milliseconds until a fact that must show is shown
INSERT: Final = "INSERT INTO orders (customer, item, price) VALUES ($1, $2, $3) RETURNING id"


class Shop:
    """The application in a process of its own, on a PostgreSQL of its own."""

    def __init__(self, server: PostgresServer, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Serve, and return when it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", str(APP)),
            env={**ENVIRONMENT, "DATABASE_URL": self.server.dsn, "PORT": str(self.port)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = b""
        assert self._process.stdout is not None
        async with asyncio.timeout(scaled(30)):
            while b"Uvicorn running" not in said:
                line = await self._process.stdout.readline()
                assert line, said.decode()
                said += line
        self._reading = asyncio.create_task(self._process.stdout.read())

    async def stop(self) -> str:
        """Press Ctrl-C; return what it has said."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        async with asyncio.timeout(scaled(20)):
            said = (await self._reading).decode()
            await self._process.wait()
        return said

    async def insert(self, customer: str, item: str, price: int = 1) -> int:
        """Insert an order past the application, as psql does; return its number."""
        async with self.connection() as connection:
            number: int = await connection.fetchval(INSERT, customer, item, price)
            return number

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncGenerator[Any]:
        """Connect to the database."""
        connection = await asyncpg.connect(self.server.dsn)
        try:
            yield connection
        finally:
            await connection.close(timeout=5)


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that may be killed."""
    with PostgresServer() as server:
        yield server


@pytest_asyncio.fixture
async def shop(own_server: PostgresServer) -> AsyncIterator[Shop]:
    """The application, with a table without orders."""
    with kept_port() as port:
        shop = Shop(own_server, port)
        await shop.start()
        async with shop.connection() as connection:
            await connection.execute("TRUNCATE orders RESTART IDENTITY")
        yield shop
        said = await shop.stop()
        assert "Traceback" not in said


@pytest_asyncio.fixture
async def page(browser: Browser, shop: Shop) -> AsyncIterator[Page]:
    """The page, once it is live; errors of its script fail the test."""
    errors: list[str] = []
    page = await browser.new_page()
    page.set_default_timeout(SHOWN_WITHIN)
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(shop.url)
    await until_state(page, "live")
    yield page
    assert errors == []


async def until_state(page: Page, *states: str) -> None:
    """Return once the page shows one of these states."""
    wanted = ", ".join(f'#state[data-state="{state}"]' for state in states)
    await page.wait_for_selector(wanted, timeout=SHOWN_WITHIN)


async def shown(page: Page) -> dict[int, str]:
    """Return the status of each order on the page, by its number."""
    cards = await page.eval_on_selector_all(
        "#orders li", "all => all.map(one => [one.id.slice(6), one.dataset.status])"
    )
    return {int(number): status for number, status in cards}


async def until_equal(page: Page, shop: Shop) -> None:
    """Return once the page shows what is in the table."""
    async with shop.connection() as connection:
        rows = await connection.fetch("SELECT id, status FROM orders")
    expected = {row["id"]: row["status"] for row in rows}
    async with asyncio.timeout(SHOWN_WITHIN / 1000):
        while await shown(page) != expected:
            await page.wait_for_timeout(50)


async def test_an_insert_by_another_program_shows(page: Page, shop: Shop) -> None:
    """With its texts as texts, and so do its updates, its deletion and a truncation."""
    number = await shop.insert("<b>Mallory</b>", "<img src=x onerror=alert(1)>", 19)
    card = page.locator(f"#order-{number}")
    await expect(card.locator(".item")).to_have_text("<img src=x onerror=alert(1)>")
    await expect(card.locator(".price")).to_have_text("19.00")
    async with shop.connection() as connection:
        await connection.execute("UPDATE orders SET status = 'shipped'")
        await expect(card.locator(".status")).to_have_text("shipped")
        await connection.execute("DELETE FROM orders")
        await expect(card).to_have_count(0)
        await shop.insert("Ada", "Engine")
        await expect(page.locator("#orders li")).to_have_count(1)
        await connection.execute("TRUNCATE orders")
    await expect(page.locator("#orders li")).to_have_count(0)


async def test_a_visitor_orders_and_another_one_sees_it(
    page: Page, browser: Browser, shop: Shop
) -> None:
    """Without a reload, in each window; and the buttons bring an order on."""
    other = await browser.new_page()
    await other.goto(shop.url)
    await until_state(other, "live")
    for name, text in (("item", "Compiler"), ("customer", "Grace"), ("price", "19.52")):
        await page.fill(f'input[name="{name}"]', text)
    await page.click("#new button")
    await expect(other.locator(".item")).to_have_text("Compiler")
    await other.click("#orders button")
    await expect(page.locator(".status")).to_have_text("paid")


async def test_a_killed_server_is_told_and_nothing_is_missed(page: Page, shop: Shop) -> None:
    """The page says that what it shows may be old, comes back by itself, and is right."""
    await shop.insert("Ada", "Engine")
    await until_equal(page, shop)
    shop.server.kill()
    await until_state(page, "database")
    await expect(page.locator("#reason")).to_contain_text("may be old")
    shop.server.start()
    for number in range(20):
        await shop.insert("Alan", f"Tape {number}")
    await until_state(page, "live")
    await until_equal(page, shop)


async def test_a_web_server_that_was_away_left_no_hole(page: Page, shop: Shop) -> None:
    """The browser says where it was, and gets what came meanwhile; nothing is read anew."""
    await shop.insert("Ada", "Engine")
    await until_equal(page, shop)
    await shop.stop()
    await until_state(page, "server")
    for number in range(20):
        await shop.insert("Alan", f"Tape {number}")
    reads: list[str] = []
    page.on("request", lambda request: reads.append(request.url))
    await shop.start()
    await until_state(page, "live")
    await until_equal(page, shop)
    assert f"{shop.url}/orders" not in reads


async def test_events_that_are_gone_are_told_and_all_is_read(page: Page, shop: Shop) -> None:
    """Where the log is of another epoch, as after a restore, the page reads all orders again."""
    await shop.insert("Ada", "Engine")
    await until_equal(page, shop)
    await shop.stop()
    async with shop.connection() as connection:
        await connection.execute("UPDATE orders SET status = 'paid'")
        await remove_logs(connection)
    await shop.start()
    await until_state(page, "live")
    await until_equal(page, shop)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
async def test_the_page_fits_and_can_be_read(
    browser: Browser, shop: Shop, scheme: Any, width: int
) -> None:
    """On a telephone too, light and dark: nothing is cut off, and texts stand out."""
    await shop.insert("Margaret", "A guidance computer with an unusually long name", 4096)
    view: Any = {"width": width, "height": 800}
    page = await browser.new_page(viewport=view, color_scheme=scheme)
    await page.goto(shop.url)
    await page.wait_for_selector("#orders li")
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    assert await page.evaluate(CONTRAST) >= 4.5


CONTRAST: Final = """
(() => {
  const light = (colour) => {
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((one) => one / 255)
      .map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    return /, 0\\)$/.test(own) && node.parentElement ? ground(node.parentElement) : own;
  };
  const ratio = (node) => {
    const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  };
  document.getAnimations().forEach((one) => one.finish());
  const texts = ["h1", "#reason", "#state", "dt", "dd", ".item", ".who", ".status", "li button",
    "#new button", "footer"];
  return Math.min(...texts.map((name) => ratio(document.querySelector(name))));
})()
"""
"""The lowest contrast of a text and its ground: WCAG 2 asks for 4.5."""
