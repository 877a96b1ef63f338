"""Tests wait for no text that a port, a pid or a random name contains by chance."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest

from tests.examples.conftest import Program
from tests.support.commands import wait_for
from tests.support.expected_text import check_expected


@pytest.mark.parametrize("text", ["350", "4", "feed", "53e0", ""])
def test_a_text_that_may_stand_in_a_random_number_is_refused(text: str) -> None:
    """Port 33507 contains 350: the line of a lost connection was taken for that of a price."""
    with pytest.raises(ValueError, match="may stand in"):
        check_expected("a price", text)
    with pytest.raises(ValueError, match="may stand in"):
        wait_for(io.StringIO(f"port 3{text}7\n"), text)


async def test_examples_are_not_asked_for_one_either() -> None:
    """Neither for one text nor for one of several."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('port 33507')", stdout=asyncio.subprocess.PIPE
    )
    program = Program(process)
    with pytest.raises(ValueError, match="may stand in"):
        await program.expect("350")
    with pytest.raises(ValueError, match="may stand in"):
        await program.expect_all("port", "350")
    await program.end()


def test_what_else_is_in_the_line_makes_it_certain() -> None:
    """A quote, a colon or a word will do."""
    check_expected("'tea': 350", '"4"', "350 cents", "order 1")
