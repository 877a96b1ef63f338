"""The functions by which consumers keep their cursors: each checks the token of its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.log._schema.tables import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._names import Names

ATTRIBUTES: Final = """
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"""

HAS_ROOM: Final = "pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.9"
"""
Whether a transaction may notify. With a full queue its commit would fail (54000), and nobody can
catch that. Without a notification those who read look for themselves, if later. Asking takes
0.1 us, and removes from the queue what no session has to read any more.
"""

CURSOR_FUNCTIONS: Final = (
    "add_consumer(text, integer, integer, bigint, bigint)",
    "lock_consumer(text, double precision)",
    "take_consumer(text, integer, bigint)",
    "has_consumer(text, integer, bigint)",
    "hold_consumer(text, integer, bigint)",
    "commit_consumer(text, integer, bigint, integer, bigint, bigint)",
    "seek_consumer(text, integer, bigint, bigint)",
    "pause_consumer(text, boolean)",
    "drop_consumer(text)",
    (
        "bury(text, integer, bigint, integer, bigint, bigint, integer, text,"
        " uuid, text, text, text, jsonb, timestamptz)"
    ),
    "discard(text, uuid)",
)

_DURABLE: Final = """
        IF current_setting('synchronous_commit') = 'off' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;"""
"""What a consumer has been told must survive a crash. A setting of the function's own would end
with the function, before the commit."""

_PLANS: Final = "SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off"
"""The plan is to be the walk of an index, which is as short with many dead versions of the row."""

_GENERATION: Final = 50
"""How many versions of a cursor's row have the same entry in the index: as many as fit in a page,
where a new version replaces a dead one."""


def functions_of_cursors(names: Names) -> Iterator[str]:
    """Yield the statements that make or replace the functions."""
    yield _add(names)
    yield _take(names)
    yield _has(names)
    yield _hold(names)
    yield _commit(names)
    yield _lock(names)
    yield _seek(names)
    yield _pause(names)
    yield _drop(names)
    yield _bury(names)
    yield _discard(names)


def _newest(names: Names) -> str:
    """Return the condition that walks the index to the newest version of a row, and to no other."""
    # While an old snapshot is open, the versions before it stay. An index scan that has to pass
    # them costs more with each commit
    return f"""c.consumer = $1 AND c.bucket = $2 AND c.generation = (
                SELECT n.generation FROM {names.consumers} AS n
                WHERE n.consumer = $1 AND n.bucket = $2 ORDER BY n.generation DESC LIMIT 1
            )"""


def _own(names: Names) -> str:
    """Return the condition for the row that is the caller's."""
    # The tokens of a consumer that is dropped and made anew begin again: without the pid, one who
    # serves the old one would move the cursor of the new one
    return f"{_newest(names)} AND c.token = $3 AND c.pid = pg_backend_pid()"


def _add(names: Names) -> str:
    """Make a consumer with so many buckets, if there is none; it begins at this position."""
    # Who meets another waits for its commit, and sees its rows then, as READ COMMITTED does. The
    # primary key would let two generations of one row be. Its generations come after those of one
    # of this name that was dropped, of which there are fewer than a thousand a second
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_add_consumer(
        consumer text, buckets integer, epoch integer, tick bigint, id bigint
    ) RETURNS void {ATTRIBUTES} AS $function$
    DECLARE
        first bigint := date_part('epoch', clock_timestamp()) * 1000;
    BEGIN{_DURABLE}
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'asyncnotify: a consumer is made in a READ COMMITTED transaction'
            USING ERRCODE = 'active_sql_transaction';
        END IF;
        PERFORM pg_advisory_xact_lock({names.lock_key("add consumer")});
        INSERT INTO {names.consumers} (
            consumer, bucket, buckets, epoch, tick, id, commits, generation
        )
        SELECT $1, number, $2, $3, $4, $5, {_GENERATION} * first, first
        FROM generate_series(0, $2 - 1) AS number
        WHERE NOT EXISTS (SELECT FROM {names.consumers} AS c WHERE c.consumer = $1);
    END
    $function$
    """


def _take(names: Names) -> str:
    # The lock is the session's: it ends with the session, however that ends. The token tells a
    # server's session that lost the lock without knowing from the one that has it now. The row is
    # locked first: with the commit of such a session it may begin a generation
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_take_consumer(
        consumer text, bucket integer, lock bigint
    ) RETURNS SETOF {names.consumers} {ATTRIBUTES} {_PLANS} AS $function$
    BEGIN
        IF NOT pg_try_advisory_lock(lock) THEN
            RETURN;
        END IF;{_DURABLE}
        PERFORM FROM {names.consumers} AS c WHERE c.consumer = $1 AND c.bucket = $2
        ORDER BY c.generation DESC LIMIT 1 FOR UPDATE;
        RETURN QUERY
        UPDATE {names.consumers} AS c
        SET token = c.token + 1, pid = pg_backend_pid(), taken_at = clock_timestamp()
        WHERE {_newest(names)} AND NOT c.paused RETURNING c.*;
        IF NOT FOUND THEN
            PERFORM pg_advisory_unlock(lock);
        END IF;
    END
    $function$
    """


def _has(names: Names) -> str:
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_has_consumer(
        consumer text, bucket integer, token bigint
    ) RETURNS boolean {ATTRIBUTES} {_PLANS} AS $function$
    BEGIN
        RETURN EXISTS (SELECT FROM {names.consumers} AS c WHERE {_own(names)});
    END
    $function$
    """


def _hold(names: Names) -> str:
    # Locks the row until the caller's transaction ends: nobody else can take it meanwhile
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_hold_consumer(
        consumer text, bucket integer, token bigint
    ) RETURNS boolean {ATTRIBUTES} {_PLANS} AS $function$
    BEGIN{_DURABLE}
        PERFORM FROM {names.consumers} AS c WHERE {_own(names)} FOR UPDATE;
        RETURN FOUND;
    END
    $function$
    """


def _commit(names: Names) -> str:
    # A place that retention has removed was noted, with how many events were behind it. One who
    # handles on what it had read before has more behind it: the number becomes a lower bound
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_commit_consumer(
        consumer text, bucket integer, token bigint, epoch integer, tick bigint, id bigint
    ) RETURNS boolean {ATTRIBUTES} {_PLANS} AS $function$
    BEGIN{_DURABLE}
        UPDATE {names.consumers} AS c
        SET epoch = $4, tick = $5, id = $6, committed_at = clock_timestamp(),
            behind_total = CASE
                WHEN c.behind_total IS NOT NULL AND $5 < (
                    SELECT first_tick FROM {REGISTRY} WHERE name = '{names.log}'
                ) THEN c.behind_total
            END,
            behind_is_exact = false, commits = c.commits + 1,
            generation = (c.commits + 1) / {_GENERATION}
        WHERE {_own(names)};
        RETURN FOUND;
    END
    $function$
    """


def _lock(names: Names) -> str:
    """Lock a consumer's rows until the transaction ends; false if that takes too many seconds."""
    # The transaction of a handler holds them while the handler runs. In steps of a tenth of the
    # time, in milliseconds: one row can be waited for several times, each with its own timeout,
    # first in the queue of those who want it, and then for the transaction that holds it. The
    # advisory lock keeps the calls in their order: one that was cancelled may still be waiting
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_lock_consumer(
        consumer text, seconds double precision
    ) RETURNS boolean {ATTRIBUTES} AS $function$
    DECLARE
        deadline timestamptz := clock_timestamp() + make_interval(secs => $2);
        step text := ceil($2 * 100)::bigint + 1;
        earlier text := current_setting('lock_timeout');
        number integer;
    BEGIN
        BEGIN
            PERFORM set_config('lock_timeout', ceil($2 * 1000)::bigint + 1 || 'ms', true);
            PERFORM pg_advisory_xact_lock(
                hashtextextended('consumer ' || $1, {names.lock_key("change consumer")})
            );
        EXCEPTION WHEN lock_not_available THEN
            RETURN false;
        END;
        FOR number IN
            SELECT c.bucket FROM {names.consumers} AS c WHERE c.consumer = $1 ORDER BY c.bucket
        LOOP
            LOOP
                BEGIN
                    PERFORM set_config('lock_timeout', step, true);
                    PERFORM FROM {names.consumers} AS c
                    WHERE c.consumer = $1 AND c.bucket = number FOR UPDATE;
                    EXIT;
                EXCEPTION WHEN lock_not_available THEN
                    IF clock_timestamp() >= deadline THEN
                        RETURN false;
                    END IF;
                END;
            END LOOP;
        END LOOP;
        PERFORM set_config('lock_timeout', earlier, true);
        RETURN true;
    END
    $function$
    """


def _seek(names: Names) -> str:
    # The new token makes the one who serves the consumer read the cursor again
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_seek_consumer(
        consumer text, epoch integer, tick bigint, id bigint
    ) RETURNS boolean {ATTRIBUTES} AS $function$
    BEGIN{_DURABLE}
        UPDATE {names.consumers} AS c
        SET epoch = $2, tick = $3, id = $4, token = c.token + 1, committed_at = clock_timestamp(),
            behind_total = NULL
        WHERE c.consumer = $1;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        IF {HAS_ROOM} THEN
            PERFORM pg_notify('{names.wake_channel}', '');
        END IF;
        RETURN true;
    END
    $function$
    """


def _pause(names: Names) -> str:
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_pause_consumer(consumer text, paused boolean)
    RETURNS boolean {ATTRIBUTES} AS $function$
    BEGIN{_DURABLE}
        UPDATE {names.consumers} AS c SET paused = $2, token = c.token + 1 WHERE c.consumer = $1;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        IF {HAS_ROOM} THEN
            PERFORM pg_notify('{names.wake_channel}', '');
        END IF;
        RETURN true;
    END
    $function$
    """


def _drop(names: Names) -> str:
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_drop_consumer(consumer text)
    RETURNS boolean {ATTRIBUTES} AS $function$
    BEGIN{_DURABLE}
        DELETE FROM {names.dead_letters} AS d WHERE d.consumer = $1;
        DELETE FROM {names.consumers} AS c WHERE c.consumer = $1;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        IF {HAS_ROOM} THEN
            PERFORM pg_notify('{names.wake_channel}', '');
        END IF;
        RETURN true;
    END
    $function$
    """


def _bury(names: Names) -> str:
    """Keep an event that the consumer could not handle, if the token is still its own."""
    # As the consumer has read it: retention may have removed the row meanwhile
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_bury(
        consumer text, bucket integer, token bigint, epoch integer, tick bigint, id bigint,
        attempts integer, error text,
        uid uuid, channel text, payload text, key text, headers jsonb, appended_at timestamptz
    ) RETURNS boolean {ATTRIBUTES} AS $function$
    BEGIN
        IF NOT {names.prefix}_hold_consumer($1, $2, $3) THEN
            RETURN false;
        END IF;
        INSERT INTO {names.dead_letters} (
            consumer, epoch, tick, id, attempts, error,
            uid, channel, payload, key, headers, appended_at
        )
        VALUES ($1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        ON CONFLICT ON CONSTRAINT {names.log}_dead_letters_pkey
        DO UPDATE SET attempts = excluded.attempts, error = excluded.error,
            died_at = clock_timestamp();
        RETURN true;
    END
    $function$
    """


def _discard(names: Names) -> str:
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_discard(consumer text, uid uuid)
    RETURNS boolean {ATTRIBUTES} AS $function$
    BEGIN{_DURABLE}
        DELETE FROM {names.dead_letters} AS d WHERE d.consumer = $1 AND d.uid = $2;
        RETURN FOUND;
    END
    $function$
    """
