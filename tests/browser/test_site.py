"""The built site, as a reader sees it: ``nox -s docs`` has built it, or these tests are skipped."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from tests.support.machine import scaled

pytest.importorskip("playwright", reason="needs Playwright: the dependency group `browser`")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, Page

SITE: Final = Path(__file__).parents[2] / "docs" / "_build"
PAGES: Final = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
SHOWN_WITHIN: Final = scaled(15_000)  # milliseconds
PHONE: Final = {"width": 390, "height": 844}
DESK: Final = {"width": 1_400, "height": 900}

pytestmark = pytest.mark.skipif(not PAGES, reason="needs the site: `nox -s docs`")

QUESTIONS: Final = {
    "nothing arrives": "nothing-arrives.html",
    "pgbouncer": "deployment/poolers.html",
    "fastapi shutdown": "fastapi.html",
    "exactly once": "log.html",
    "test without postgres": "how-to/tests.html",
    "PoolerError": "reference/",
    "wait_connected": "reference/",
}
"""What people look for, and the page that answers it."""

WIDER: Final = """() => {
    const [seen, all] = [document.documentElement.clientWidth, document.documentElement.scrollWidth]
    return all > seen ? all : 0
}"""
BROKEN: Final = """() => [...document.images]
    .filter(image => image.loading !== 'lazy' && image.complete && !image.naturalWidth)
    .map(image => image.src)"""
CONTRAST: Final = """() => {
    const light = color => {
        const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map(part => {
            const c = part / 255
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
        })
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor
            if (!/, 0\\)|transparent/.test(color)) return color
        }
        return 'rgb(255, 255, 255)'
    }
    const contrast = element => {
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))]
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    }
    const texts = document.querySelectorAll('article p, article td, article pre')
    return Math.min(...[...texts].map(contrast))
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and writes no log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as it is there
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The site, served."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest_asyncio.fixture
async def page(browser: Browser, address: str) -> AsyncIterator[Page]:
    """A window; errors of scripts, and requests to anybody else, fail the test."""
    wrong: list[str] = []
    page = await browser.new_page()
    page.set_default_timeout(SHOWN_WITHIN)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda r: None if r.url.startswith((address, "data:")) else wrong.append(r.url)
    )
    page.on("requestfailed", lambda request: wrong.append(request.url))
    yield page
    await page.close()
    assert wrong == []


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_is_answered_on_the_first_hit(
    page: Page, address: str, question: str
) -> None:
    """The search finds the page that answers it before all others."""
    await page.goto(f"{address}/search.html?q={question}")
    first = page.locator("#search-results ul.search li a").first
    await page.wait_for_selector("#search-results p.search-summary:has-text('found')")
    target = str(await first.get_attribute("href"))
    assert target.removeprefix(f"{address}/").startswith(QUESTIONS[question]), target


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
async def test_no_page_is_wider_than_the_window(
    page: Page, address: str, size: dict[str, int]
) -> None:
    """Tables and code scroll by themselves, and every picture is there."""
    await page.set_viewport_size({"width": size["width"], "height": size["height"]})
    wide: dict[str, object] = {}
    for name in PAGES:
        await page.goto(f"{address}/{name}")
        found = await page.evaluate(WIDER) or await page.evaluate(BROKEN)
        wide |= {name: found} if found else {}
    assert wide == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_read_by_day_and_by_night(page: Page, address: str, scheme: str) -> None:
    """Its contrast is at least 4.5, as the accessibility guidelines ask (WCAG 2.2, 1.4.3)."""
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    poor: dict[str, float] = {}
    for name in ("index.html", "fastapi.html", "performance.html", "reference/index.html"):
        await page.goto(f"{address}/{name}")
        contrast: float = await page.evaluate(CONTRAST)
        poor |= {name: contrast} if contrast < 4.5 else {}
    assert poor == {}
