"""
What locks raise on purpose.

::

    AsyncNotifyError
    └── LockError
        ├── LockNameError (ValueError)       a name that no lock may have
        ├── LockLostError                    the lock was lost while it was held
        ├── LockTimeoutError (TimeoutError)  the lock was not free in time
        ├── AlreadyHeldError (RuntimeError)  the task holds this lock, and would wait for itself
        ├── TooManyLocksError (RuntimeError) the process uses more locks than are allowed
        ├── LockNotInstalledError            the database has no table of locks
        └── LockVersionError                 … or one of a newer version
"""

from __future__ import annotations

from typing import Final

from asyncnotify._errors import AsyncNotifyError

LACKS_PRIVILEGE: Final = (
    "Locks(…).grants(hold=…, check=…) returns the statements that give a role its rights;"
    " install() needs the right to create a schema, or to own the schema asyncnotify"
)
"""What is added to the server's words, which name a schema, a table or a function."""


class LockError(AsyncNotifyError):
    """The root of every exception that locks raise on purpose."""


class LockNameError(LockError, ValueError):
    """
    A name that no lock may have.

    Attributes:
        name: The name as it was given, whatever its type.
        reason: What is allowed.
    """

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        if isinstance(self.name, str) and "://" not in self.name:
            return f"lock name {self.name!r:.100}: {self.reason}"
        what = "a URL" if isinstance(self.name, str) else f"of type {type(self.name).__name__}"
        return f"the name of a lock is {what}: {self.reason}"


class LockLostError(LockError):
    """
    The lock was lost while it was held; another process may hold it.

    ``__cause__`` is what has ended the session, as far as that is known.

    Attributes:
        name: The name of the lock.
        token: The token with which it was held.
        reason: How the loss was found out.
    """

    def __init__(self, name: str, token: int, reason: str) -> None:
        super().__init__(name, token, reason)
        self.name = name
        self.token = token
        self.reason = reason

    def __str__(self) -> str:
        return f"lock {self.name!r} with token {self.token} was lost: {self.reason}"


class LockTimeoutError(LockError, TimeoutError):
    """
    The lock was not free in time.

    Attributes:
        name: The name of the lock.
        timeout: How long the call waited, in seconds; 0: it tried once.
    """

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__(name)  # OSError would take several arguments for an errno
        BaseException.__init__(self, name, timeout)
        self.name = name
        self.timeout = timeout

    def __str__(self) -> str:
        if not self.timeout:
            return f"lock {self.name!r} is not free"
        return f"lock {self.name!r} was not free within {self.timeout:g} s"


class AlreadyHeldError(LockError, RuntimeError):
    """
    The task holds this lock already, and would wait for itself.

    Attributes:
        name: The name of the lock.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"lock {self.name!r} is held by this task, which would wait for itself"


class TooManyLocksError(LockError, RuntimeError):
    """
    More names are held or waited for at once than ``limit=`` allows.

    Attributes:
        limit: How many are allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.limit} locks are held or waited for, the limit of this process: the server"
            " has memory for a limited number of locks, and without any left it accepts no"
            " connections"
        )


class LockNotInstalledError(LockError):
    """The database has no table of locks: ``install()`` makes it."""

    def __str__(self) -> str:
        return "the database has no table of locks: Locks(…).install() makes it"


class LockVersionError(LockError):
    """
    The table of locks was installed by a newer version of asyncnotify than this one.

    Attributes:
        installed: The version of the schema in the database.
        known: The newest version that this library knows.
    """

    def __init__(self, installed: int, known: int) -> None:
        super().__init__(installed, known)
        self.installed = installed
        self.known = known

    def __str__(self) -> str:
        return (
            f"the table of locks has a schema of version {self.installed}, and this asyncnotify"
            f" knows versions up to {self.known}: update asyncnotify"
        )
