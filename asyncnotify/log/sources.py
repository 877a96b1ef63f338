"""
What may stand in for PostgreSQL below a log: ``asyncnotify.testing.fake`` does.

Programs need nothing of this module. A ``LogSource`` that is registered by
``asyncnotify.sources.register()`` hands over what a Log needs of a server: ``LogSessions``, which
open a ``LogSession``. Their docstrings are the contract, and they may get further verbs and methods
in a minor version.

Each ``Statement`` has a verb. These are all of them, with what is in ``given``, the arguments that
follow, and the answer. A position is three arguments: epoch, tick, id; an owner is three as well:
consumer, bucket, token.

===================  ==========================================================================
tick                 take a tick if something is new → its number
ticks                first, count → rows of the ticks from a number on
news                 the same, after ``tick``
place                epoch → the newest tick, its epoch, the first tick of the next epoch, or null
last_before          time → the number of the newest tick before it, or no row
visible              given channels and bucket; after, end, rows, bytes, …, snapshot → events, with
                     the xid of each as x
short                as ``visible``, with the most bytes of a payload in the place of bytes, and a
                     usual channel, or null, before the snapshot → one row: what ``packed()``
                     returns for that channel, with null for each longer payload; how many are not
                     null; the oldest tick. Null for each of the former if there is no event
whole                given channels and bucket; after, end, rows, bytes, … → events
late                 given channels and bucket; after, end, rows, bytes, …, xids → as ``visible``
first_late           after, end, xids → the smallest id of these transactions, or null
late_in_range        first, end → the xids in this range that have events
expire               empty one part of the log that is old enough → its number, or null; a negative
                     number: there is more to be done before it is empty
wake                 notify those who read; no answer
buckets_of           consumer → how many buckets it has, or no row
add_consumer         consumer, buckets, position: make it, unless it is there
seek                 consumer, position, seconds → whether it is there; null if another transaction
                     has held it (``hold_and_mark``) for so many seconds
pause                consumer, whether it is to be paused, seconds → as ``seek``
drop                 consumer, seconds → as ``seek``
holder               consumer → the pid of the transaction that holds it, and whether that is the
                     session that has taken it; or no row
knows                consumer → as ``buckets_of``, on the session that is to serve it
take_consumer        consumer, bucket, lock → its row, with a new token, if the lock was free; no
                     token of a consumer that has been dropped counts for a new one of its name.
                     It has what the consumer had behind it when its place was removed, or None:
                     behind_total, behind_since, behind_is_exact
unlock               given the lock; no answer
lock_shared          given a lock; waits; no answer
unlock_shared        given the lock; no answer
look                 consumer, locks as texts → who holds which of them, and how many buckets it has
has_consumer         owner → whether the token counts
commit               owner, position → whether the token counts
hold_and_mark        owner → whether the token counts; the transaction keeps it, and is marked
commit_in_marked     owner, position → as ``commit``; null if the transaction is not marked
bury                 owner, position, attempts, error; id, channel, payload, key, headers and time
                     of the event, which need not be kept any more → whether the token counts
discard_and_mark     consumer, event's id → as ``discard``; the transaction is marked
is_marked            whether the transaction is marked
discard              consumer, event's id → whether there was such a dead letter
dead_letters         consumer or null, count → rows of the dead letters
log_status           the row of the log
consumers            rows of the consumers' buckets
oldest_writer        the row of the oldest transaction that has written, or none
===================  ==========================================================================
"""

from asyncnotify.log._entries import Entry
from asyncnotify.log._names import wake_channel
from asyncnotify.log._ports import (
    LogSession,
    LogSessions,
    LogSource,
    LogTransaction,
    PermanentRefusalError,
    SessionTransaction,
    Statement,
    UnsentError,
)
from asyncnotify.log._schema.versions import newest_version
from asyncnotify.log._settings import GivenSettings, Settings
from asyncnotify.log._walk.buckets import Bucket
from asyncnotify.log._walk.columns import Columns, columns_of, packed

__all__ = [
    "Bucket",
    "Columns",
    "Entry",
    "GivenSettings",
    "LogSession",
    "LogSessions",
    "LogSource",
    "LogTransaction",
    "PermanentRefusalError",
    "SessionTransaction",
    "Settings",
    "Statement",
    "UnsentError",
    "columns_of",
    "newest_version",
    "packed",
    "wake_channel",
]

for _public in map(globals().__getitem__, __all__):
    if isinstance(_public, type):
        _public.__module__ = __name__  # the name in tracebacks, pickles and docs
