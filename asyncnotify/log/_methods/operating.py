"""What those who operate a log ask of it, and tell it."""

from __future__ import annotations

from asyncnotify._arguments import check_count, check_present
from asyncnotify.log._errors import UnknownConsumerError
from asyncnotify.log._incidents import IncidentStream
from asyncnotify.log._methods.running import Running
from asyncnotify.log._names import check_consumer_name
from asyncnotify.log._reading.stream import After, check_after
from asyncnotify.log._status import DeadLetter, LogStatus


class Operating(Running):
    """The methods that show the state of a log and of its consumers, and change it."""

    async def status(self) -> LogStatus:
        """
        Return the state of the log: its size, its consumers and how far they are behind.

        Raises:
            NotInstalledError: The database has no such log.
            ConnectError: There is no connection.
            ConnectionLostError: The connection died.
            StandbyError: The server is a standby.
            WrongLoopError: The call came from another event loop or process.
            asyncpg.PostgresError: The server refused a statement.
        """
        return await self._running().operations.status()

    def incidents(self) -> IncidentStream:
        """
        Return an asynchronous iterator over the incidents of readers and consumers, from now on.

        Ends when the log is closed. The same as ``on_incident=`` is called with.

        Raises:
            WrongLoopError: The call came from another event loop or process.
        """
        runtime = self._running()
        return runtime.reporter.stream(runtime.owner.check)

    async def dead_letters(
        self, consumer: str | None = None, *, limit: int = 100
    ) -> list[DeadLetter]:
        """
        Return events that a consumer could not handle, the oldest first.

        Args:
            consumer: Its name; None: of all consumers.
            limit: How many at most.

        Raises:
            ValueError: ``limit`` is not a whole number, at least 1.
            LogNameError: No consumer can have this name.
            Exception: As of ``status()``.
        """
        check_count("limit", limit)
        if consumer is not None:
            check_consumer_name(consumer)
        return await self._running().operations.dead_letters(consumer, limit)

    async def retry(self, letter: DeadLetter) -> None:
        """
        Call the handler of a dead letter once more, here, and discard the letter if it returns.

        A transactional handler and the discarding share a transaction.

        Raises:
            TypeError: ``letter`` is no DeadLetter.
            UnknownConsumerError: This Log has no handler for the consumer, by ``on()``.
            LogError: The letter is gone, retried or discarded; the handler is not called.
            PayloadDecodeError: The payload still cannot be decoded.
            Exception: What the handler raised, or as of ``status()``: the letter stays.
        """
        check_present("letter", letter, DeadLetter)
        handling = self._handlings.get(letter.consumer)
        if handling is None:
            raise UnknownConsumerError(letter.consumer)
        await self._running().try_again(handling, letter)

    async def discard(self, letter: DeadLetter) -> bool:
        """
        Remove a dead letter; return whether it was still there.

        Raises:
            TypeError: ``letter`` is no DeadLetter.
            Exception: As of ``status()``.
        """
        check_present("letter", letter, DeadLetter)
        return await self._running().operations.discard(letter.consumer, letter.event.id)

    async def seek(self, consumer: str, to: After) -> None:
        """
        Move the cursor of a consumer, backward or forward; its process continues from there.

        Events that have been read already may still be handled, until the cursor is committed
        next: that is at most 0.1 seconds of them, or the batch that is being handled.

        A transactional handler that runs is waited for, up to 0.8 of ``operation_timeout``: it
        must not make this call for its own consumer. The same holds for ``pause()``, ``resume()``
        and ``drop()``.

        Args:
            consumer: Its name.
            to: As ``after`` of ``read()``.

        Raises:
            LogNameError: No consumer can have this name.
            UnknownConsumerError: The log has no such consumer.
            ConsumerLockedError: A transaction, such as a handler's, held it for too long.
            PositionError: This log has not given the position.
            TypeError: As of ``read()``.
            ValueError: As of ``read()``.
            Exception: As of ``status()``.
        """
        check_consumer_name(consumer)
        check_after(to, "to")
        runtime = self._running()
        await runtime.operations.seek(consumer, await runtime.place(to))

    async def pause(self, consumer: str) -> None:
        """
        Let nobody serve a consumer, until ``resume()``; what it has before it is kept.

        An event that is being handled at this moment may be handled once more afterwards.

        Raises:
            LogNameError: No consumer can have this name.
            UnknownConsumerError: The log has no such consumer.
            ConsumerLockedError: A transaction, such as a handler's, held it for too long.
            Exception: As of ``status()``.
        """
        check_consumer_name(consumer)
        await self._running().operations.pause(consumer, paused=True)

    async def resume(self, consumer: str) -> None:
        """
        Let a consumer be served again that was paused.

        Raises:
            LogNameError: No consumer can have this name.
            UnknownConsumerError: The log has no such consumer.
            ConsumerLockedError: A transaction, such as a handler's, held it for too long.
            Exception: As of ``status()``.
        """
        check_consumer_name(consumer)
        await self._running().operations.pause(consumer, paused=False)

    async def drop(self, consumer: str) -> None:
        """
        Remove a consumer for good, with its cursor and its dead letters.

        It no longer keeps old events from being removed. One who still iterates it gets an
        UnknownConsumerError.

        Raises:
            LogNameError: No consumer can have this name.
            UnknownConsumerError: The log has no such consumer.
            ConsumerLockedError: A transaction, such as a handler's, held it for too long.
            Exception: As of ``status()``.
        """
        check_consumer_name(consumer)
        await self._running().operations.drop(consumer)
