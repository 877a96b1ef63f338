"""
What can go wrong with a PostgreSQL server run for tests.

::

    PostgresServerError
    ├── BinariesNotFoundError
    ├── CommandFailedError
    │   └── ServerStartError
    ├── ServerNotRunningError
    ├── ServerTimeoutError        also a TimeoutError
    └── UnknownBackendError       also a LookupError

"""

from __future__ import annotations

__all__ = [
    "BinariesNotFoundError",
    "CommandFailedError",
    "PostgresServerError",
    "ServerNotRunningError",
    "ServerStartError",
    "ServerTimeoutError",
    "UnknownBackendError",
]


class PostgresServerError(Exception):
    """The root of every error raised here; raised itself where nothing narrower fits."""


class BinariesNotFoundError(PostgresServerError):
    """No usable PostgreSQL server binaries, and what to do about it."""


class CommandFailedError(PostgresServerError):
    """One of PostgreSQL's programs ended with an error."""

    def __init__(self, program: str, status: int, log_tail: str) -> None:
        super().__init__(program, status, log_tail)
        self.program: str = program
        self.status: int = status
        self.log_tail: str = log_tail

    def __str__(self) -> str:
        return f"{self.program} failed with exit status {self.status}; it said:\n{self.log_tail}"


class ServerStartError(CommandFailedError):
    """The server ended before it was ready; the log's tail says why."""


class ServerNotRunningError(PostgresServerError):
    """The operation needs a running server: call ``start()`` first."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        return f"cannot {self.operation}: the server is not running; call start() first"


class ServerTimeoutError(PostgresServerError, TimeoutError):
    """The server did not get there in time; the log's tail may say why."""

    def __init__(self, operation: str, timeout: float, log_tail: str) -> None:
        super().__init__(operation, timeout, log_tail)
        self.operation: str = operation
        self.timeout: float = timeout
        self.log_tail: str = log_tail

    def __str__(self) -> str:
        late = f"{self.operation}: not done within {self.timeout:g} s"
        return f"{late}; the log ends:\n{self.log_tail}"


class UnknownBackendError(PostgresServerError, LookupError):
    """The process id is not one of this server's processes, so it was left alone."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return f"process {self.pid} does not belong to this server (has that session ended?)"
