"""How much one call of a log's functions does: the server's answer must not take too long."""

from __future__ import annotations

from typing import Final

EMPTY_TICK_IDS: Final = 1_000
"""After so many ids a tick is taken also where nothing new is visible: otherwise the ids of a large
open transaction would be walked again at every call."""

MOST_TICK_IDS: Final = 1_000_000
"""No tick goes further than so many ids, which are counted in 0.3 to 0.6 s; events of transactions
that were open come on top. Otherwise what nobody has read for long would be counted at once, in
more time than a query may take, and again at each attempt."""

MOST_TICKS: Final = 100_000
"""No more ticks than this are removed at once, in 0.2 s: who reads live takes hundreds a second."""
