"""
Functions around each call of a handler: for tracing, metrics, time limits, retries, tenants.

The chain is made when a subscription begins, not for each call. Where there is no middleware, the
worker calls the handler itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from asyncnotify._arguments import check_middleware, check_several_middleware
from asyncnotify._model import Notification

CallNext: TypeAlias = Callable[[Notification[Any]], Awaitable[object]]
"""What a middleware is given to call: the next one, or the handler."""

Middleware: TypeAlias = Callable[[Notification[Any], CallNext], Awaitable[object]]
"""What ``middleware=`` takes: an async function, called with a Notification and ``call_next``."""


class Chain:
    """A handler and its middleware as one async function; the first middleware is outermost."""

    __slots__ = ("_first",)

    def __init__(self, middleware: Sequence[Middleware], call_handler: CallNext) -> None:
        self._first = call_handler
        for function in reversed(middleware):
            self._first = _before(function, self._first)

    async def __call__(self, notification: Notification[Any]) -> None:
        """Call the first middleware, and wait for it."""
        await self._first(notification)


def _before(function: Middleware, call_next: CallNext) -> CallNext:
    """Return a function that makes the coroutine of a middleware."""
    return lambda notification: function(notification, call_next)


def checked(middleware: object) -> tuple[Middleware, ...]:
    """
    Return the middleware as a tuple.

    Raises:
        TypeError: The argument is not a list, or an element is not an async function of two
            arguments.
    """
    several = check_several_middleware(middleware)
    for function in several:
        check_middleware(function)
    return several


def with_outermost(
    middleware: tuple[Middleware, ...], function: Middleware
) -> tuple[Middleware, ...]:
    """
    Return the middleware with one more, which is called first.

    Raises:
        TypeError: It is not an async function of two arguments.
    """
    check_middleware(function)
    return (function, *middleware)


def without(middleware: tuple[Middleware, ...], function: Middleware) -> tuple[Middleware, ...]:
    """Return the middleware without this one, of several equal ones without the first."""
    if function not in middleware:
        return middleware
    at = middleware.index(function)
    return (*middleware[:at], *middleware[at + 1 :])
