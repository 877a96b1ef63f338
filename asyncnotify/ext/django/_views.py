"""Views for the URLs of a project."""

from __future__ import annotations

import asyncio
from typing import Final

from django.http import HttpRequest, JsonResponse

from asyncnotify import AsyncNotifyError
from asyncnotify._errors import describe_error
from asyncnotify.ext._health import UNAVAILABLE, health_of
from asyncnotify.ext.django._listeners import get_listener

TIMEOUT: Final = 2.0
"""Seconds for a listener that does not run yet to start."""


async def health(request: HttpRequest) -> JsonResponse:  # noqa: ARG001 - as Django calls it
    """
    Answer a health check: 200 while notifications are delivered, 503 while they are missed.

    For ``path("health", health)``, under ASGI. The body is JSON, and says what is wrong and whether
    that ends by itself; it names the server and the role, but no password: for operators, not for
    everybody. A listener that does not run yet is started, and has two seconds for that.

    Raises:
        ImproperlyConfigured: The settings cannot be honoured.
        ConnectionDoesNotExist: There is no such alias.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            listener = await get_listener()
    except (AsyncNotifyError, TimeoutError) as error:
        meaning = "no listener could be started: no notifications are delivered"
        last_error = describe_error(error)
        body = {"status": "unavailable", "meaning": meaning, "last_error": last_error}
        return JsonResponse(body, status=UNAVAILABLE)
    answer = await health_of(listener)
    return JsonResponse(answer.body, status=answer.status)
