"""
The durable log: events in rows, appended in the caller's transaction, and read in one order.

NOTIFY only wakes readers. The module's path is its API, with the names in ``__all__``.
"""

from asyncnotify.log._blocking.connection import BlockingConnection
from asyncnotify.log._blocking.incidents import BlockingIncidentStream
from asyncnotify.log._blocking.iterating import BlockingConsumer, BlockingLogStream
from asyncnotify.log._blocking.log import BlockingLog
from asyncnotify.log._consuming.consumer import Consumer
from asyncnotify.log._errors import (
    BucketCountError,
    ConsumerLockedError,
    EntryError,
    LogError,
    LogNameError,
    NotInstalledError,
    PositionError,
    SchemaVersionError,
    StandbyError,
    UnknownConsumerError,
)
from asyncnotify.log._incidents import (
    DeadLettered,
    EventsExpired,
    HandlerEnded,
    Incident,
    IncidentStream,
    Interrupted,
    OnIncident,
    Resumed,
)
from asyncnotify.log._log import Log
from asyncnotify.log._reading.stream import After, LogStream
from asyncnotify.log._retry import Retry
from asyncnotify.log._status import ConsumerStatus, DeadLetter, LogStatus, WriterStatus
from asyncnotify.log._values import Event, Position

__all__ = [
    "After",
    "BlockingConnection",
    "BlockingConsumer",
    "BlockingIncidentStream",
    "BlockingLog",
    "BlockingLogStream",
    "BucketCountError",
    "Consumer",
    "ConsumerLockedError",
    "ConsumerStatus",
    "DeadLetter",
    "DeadLettered",
    "EntryError",
    "Event",
    "EventsExpired",
    "HandlerEnded",
    "Incident",
    "IncidentStream",
    "Interrupted",
    "Log",
    "LogError",
    "LogNameError",
    "LogStatus",
    "LogStream",
    "NotInstalledError",
    "OnIncident",
    "Position",
    "PositionError",
    "Resumed",
    "Retry",
    "SchemaVersionError",
    "StandbyError",
    "UnknownConsumerError",
    "WriterStatus",
]

for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
