"""Calling a handler once more with a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncnotify._channels.arguments import channels_of
from asyncnotify.log._consuming.calling import result_of
from asyncnotify.log._consuming.serving import MARK, MARKED, TransactionEndedError
from asyncnotify.log._errors import LogError
from asyncnotify.log._ports import Statement
from asyncnotify.log._values import with_contents

if TYPE_CHECKING:
    from asyncnotify.log._consuming.calling import Handling
    from asyncnotify.log._names import Names
    from asyncnotify.log._ports import LogSession
    from asyncnotify.log._status import DeadLetter
    from asyncnotify.log._values import Event


async def handle_dead_letter(
    session: LogSession, names: Names, handling: Handling, letter: DeadLetter
) -> None:
    """
    Call a handler with a dead letter; remove that if the handler returns.

    It is removed first, in the transaction that commits at the end: who retries the same one
    meanwhile waits for that, and finds it gone.

    Raises:
        LogError: The dead letter is gone: the handler is not called.
        Exception: What the handler raised: the dead letter stays.
    """
    channel = channels_of(handling.channels).get(letter.event.channel)
    event: Event[Any] = letter.event
    if channel is not None:
        payload = channel.decode(letter.event.payload)
        event = with_contents(event, payload, event.headers)
    transaction = await session.begin()
    try:
        await _discard(session, names, letter)
        connection = (session.connection,) if handling.transactional else ()
        await result_of(handling.function, (event, *connection))
        await _check_marked(session)
    except BaseException:
        if not session.lost:
            await transaction.rollback()
        raise
    await transaction.commit()


async def _check_marked(session: LogSession) -> None:
    """Raise TransactionEndedError unless the transaction is the one that was marked."""
    [row] = await session.fetch(Statement("is_marked", f"SELECT {MARKED}"))
    if not row[0]:
        raise TransactionEndedError


async def _discard(session: LogSession, names: Names, letter: DeadLetter) -> None:
    """Remove a dead letter in the transaction, which is marked."""
    statement = Statement("discard_and_mark", f"SELECT {names.prefix}_discard($1, $2), {MARK}")
    [row] = await session.fetch(statement, letter.consumer, letter.event.id)
    if not row[0]:
        msg = (
            f"the dead letter of consumer {letter.consumer!r} for the event at"
            f" {letter.event.position} is gone: it has been retried or discarded"
        )
        raise LogError(msg)
