"""What versions of asyncpg have in common, and what only the newer ones do."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

_VERSION: Final = tuple(int(part) for part in version("asyncpg").split(".")[:2])

TELLS_LAST_WORDS: Final = _VERSION >= (0, 32)
"""Whether the server's error is told that answers a prepared statement and ends the session. Where
it is not, the statement is in doubt."""

READS_CATALOGS_PLAINLY: Final = _VERSION >= (0, 31)
"""Whether its own reading of types does not use the class for records that the caller has set."""
