"""A network of our own: a host behind a router that can stop forwarding. Linux, as root."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000
PROGRAMS: Final = ("ip", "nsenter", "unshare")
HOLD: Final = ("unshare", "--net", "sh", "-c", "echo ready; exec cat")
FORWARDING: Final = "/proc/sys/net/ipv4/ip_forward"


class UnavailableError(Exception):
    """Namespaces cannot be had here, and why."""


class Namespace:
    """
    A network namespace. It has no name, so that nothing is left when we are killed.

    A process holds it, which ends when the pipe from us does.
    """

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._holder = subprocess.Popen(HOLD, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self.pid = self._holder.pid
        if not _pipe(self._holder.stdout).readline():
            self.close()
            message = "network namespaces are not permitted here"
            raise UnavailableError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it: with its last process it ends, and with it its interfaces."""
        _pipe(self._holder.stdin).close()
        self._holder.wait()
        _pipe(self._holder.stdout).close()

    def ip(self, *commands: str) -> None:
        """Run commands of ``ip`` in there."""
        self.run("ip", "-batch", "-", stdin="".join(f"{command}\n" for command in commands))

    def run(self, *command: str, stdin: str = "") -> None:
        """Run a program in there."""
        run("nsenter", "--net", f"--target={self.pid}", *command, stdin=stdin)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in there: what it starts or opens is in there as well."""

        def enter_and_call() -> T:
            self._enter()
            return function()

        # Each thread is in a namespace by itself: this one enters, and ends in there
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(enter_and_call).result()

    def _enter(self) -> None:
        descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            status = ctypes.CDLL(None).setns(descriptor, CLONE_NEWNET)
        finally:
            os.close(descriptor)
        if status != 0:
            message = "a network namespace cannot be entered here"
            raise UnavailableError(message)


class RoutedHost:
    """
    A host behind a router, which can swallow everything without a word: a hole in the network.

    Attributes:
        host: The namespace that is the host.
        near: Our address, as the host sees it.
        far: The host's address.

    Raises:
        UnavailableError: This system, or this user, cannot make namespaces.
    """

    def __init__(self) -> None:
        check_available()
        subnet = f"198.18.{random.randrange(256)}"  # reserved for measuring networks
        self.near, self._gateway = f"{subnet}.1", f"{subnet}.2"
        self._beyond, self.far = f"{subnet}.5", f"{subnet}.6"
        self._behind = f"{subnet}.4/30"
        self._stack = ExitStack()
        with ExitStack() as stack:
            self._router = stack.enter_context(Namespace())
            self.host = stack.enter_context(Namespace())
            self._lay_cables()
            self.open()
            self._stack = stack.pop_all()

    def _lay_cables(self) -> None:
        ours = f"an{os.getpid()}"
        self._router.ip(f"link add near type veth peer name {ours} netns {os.getpid()}")
        self._router.ip(f"link add far type veth peer name wire netns {self.host.pid}")
        commands = [
            f"addr add {self.near}/30 dev {ours}",
            f"link set {ours} up",
            f"route add {self._behind} via {self._gateway}",
        ]
        self._router.ip(
            f"addr add {self._gateway}/30 dev near",
            "link set near up",
            f"addr add {self._beyond}/30 dev far",
            "link set far up",
        )
        run("ip", "-batch", "-", stdin="".join(f"{command}\n" for command in commands))
        self.host.ip(
            "link set lo up",
            f"addr add {self.far}/30 dev wire",
            "link set wire up",
            f"route add default via {self._beyond}",
        )

    def open(self) -> None:
        """Let the router forward."""
        self._forward("1")

    def cut(self) -> None:
        """Let the router drop everything: no RST, no ICMP, in either direction."""
        self._forward("0")

    def _forward(self, value: str) -> None:
        self._router.run("tee", FORWARDING, stdin=value)

    def close(self) -> None:
        """Remove the router and the host. Whatever still runs in there keeps its own part."""
        self._stack.close()


def check_available() -> None:
    """Raise UnavailableError if it is known beforehand that there can be no namespaces."""
    if sys.platform != "linux":
        message = "network namespaces are Linux's"
        raise UnavailableError(message)
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        message = f"network namespaces need {', '.join(missing)} (packages iproute2, util-linux)"
        raise UnavailableError(message)
    if os.geteuid() != 0:
        message = "only root may make network namespaces"
        raise UnavailableError(message)


def run(*command: str, stdin: str = "") -> None:
    """Run a program; UnavailableError with what it said if it fails."""
    result = subprocess.run(command, input=stdin, capture_output=True, check=False, text=True)
    if result.returncode != 0:
        message = f"{' '.join(command)} failed: {result.stderr.strip()}"
        raise UnavailableError(message)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
