"""The functions of a log, as statements. Each replaces itself: an upgrade locks no table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.log._bounds import EMPTY_TICK_IDS, MOST_TICK_IDS
from asyncnotify.log._entries import HEADERS_LIMIT, KEY_LIMIT, PAYLOAD_LIMIT
from asyncnotify.log._names import SCHEMA
from asyncnotify.log._schema.cursors import (
    ATTRIBUTES,
    CURSOR_FUNCTIONS,
    HAS_ROOM,
    functions_of_cursors,
)
from asyncnotify.log._schema.retention import RETENTION_FUNCTIONS, functions_of_retention
from asyncnotify.log._schema.tables import TIMELINE, not_removed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._names import Names
    from asyncnotify.log._settings import Settings


_PLANS: Final = """
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_indexonlyscan = off SET jit = off"""
"""The plan is to be the walk of an index, whatever statistics say or do not; and for ids, of the
index on ids. That on xids has them too, and would be read alone, with a step for each xid of the
log, of which old statistics know few. Before 18 a plan that is switched off and taken all the same
has so high a cost that it would be compiled, which takes 50 ms."""

ON_STANDBY: Final = "25006"
IN_TRANSACTION: Final = "25001"
SHARED_APPEND: Final = f"{SCHEMA}.append(text, text, text, text, jsonb, bool)"


def functions_of(names: Names, settings: Settings) -> Iterator[str]:
    """Yield the statements that make or replace the functions of one log, and their privileges."""
    yield _shared_append()
    yield _append(names, settings)
    yield _append_many(names, settings)
    yield _begin_epoch(names)
    yield _tick(names)
    yield _news(names)
    yield _first_tick(names)
    yield from functions_of_cursors(names)
    yield from functions_of_retention(names, _slot(settings))
    for function in (*appenders_functions(names), *consumers_functions(names)):
        yield f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"
    yield f"REVOKE ALL ON FUNCTION {names.prefix}_begin_epoch() FROM PUBLIC"
    yield f"REVOKE ALL ON FUNCTION {SHARED_APPEND} FROM PUBLIC"


def appenders_functions(names: Names) -> tuple[str, ...]:
    """Return the functions that one who appends may execute."""
    return (
        f"{names.prefix}_append(text, text, text, jsonb, bool, uuid)",
        f"{names.prefix}_append_many(text[], text[], text[], jsonb[], bool, uuid[])",
    )


def consumers_functions(names: Names) -> tuple[str, ...]:
    """Return the functions that one who consumes may execute."""
    return (
        f"{names.prefix}_tick()",
        f"{names.prefix}_news(bigint, integer)",
        f"{names.prefix}_first_tick()",
        *(f"{names.prefix}_{function}" for function in CURSOR_FUNCTIONS),
        *(f"{names.prefix}_{function}" for function in RETENTION_FUNCTIONS),
    )


# -- appending ------------------------------------------------------------------------------------


def _shared_append() -> str:
    # With the rights of the caller, who needs those for the log
    return f"""
    CREATE OR REPLACE FUNCTION {SCHEMA}.append(
        log text, channel text, payload text,
        key text DEFAULT NULL, headers jsonb DEFAULT NULL, wake bool DEFAULT true
    ) RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
    DECLARE
        made uuid;
    BEGIN
        EXECUTE format('SELECT {SCHEMA}.%I($1, $2, $3, $4, $5)', log || '_append')
        INTO made USING channel, payload, key, headers, wake;
        RETURN made;
    END
    $function$
    """


def _append(names: Names, settings: Settings) -> str:
    # PL/pgSQL prepares each expression anew in each transaction: those for what few events have, or
    # must not have, stand apart, and are looked at where a cheaper one says so
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_append(
        channel text, payload text,
        key text DEFAULT NULL, headers jsonb DEFAULT NULL, wake bool DEFAULT true,
        id uuid DEFAULT gen_random_uuid()
    ) RETURNS uuid {ATTRIBUTES} AS $function$
    BEGIN
        IF $4 IS NOT NULL OR {_refused_texts("$1", "$2", "$3")}
            OR getdatabaseencoding() <> 'UTF8'
        THEN
            IF {_refused("$1", "$2", "$3", "$4")} THEN
                {_refusal("$1", "$2", "$3", "$4")}
            END IF;{_check_readable("$1, $2, $3, $4")}
        END IF;
        INSERT INTO {names.events} (slot, channel, payload, key, headers, uid)
        VALUES ({_slot(settings)}, $1, $2, $3, $4, $6);
        IF wake THEN
            IF (CASE WHEN {HAS_ROOM} THEN pg_notify('{names.wake_channel}', '') IS NULL END) THEN
                NULL;
            END IF;
        END IF;
        RETURN $6;
    END
    $function$
    """


def _append_many(names: Names, settings: Settings) -> str:
    # The rows come in the order of the arrays, and the defaults are computed row by row
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_append_many(
        channels text[], payloads text[],
        keys text[] DEFAULT NULL, headers jsonb[] DEFAULT NULL, wake bool DEFAULT true,
        ids uuid[] DEFAULT NULL
    ) RETURNS bigint {ATTRIBUTES} AS $function$
    DECLARE
        refused record;
        appended bigint;
    BEGIN
        SELECT event.channel, event.payload, event.key, event.headers INTO refused
        FROM unnest($1, $2, $3, $4) AS event (channel, payload, key, headers)
        WHERE {_refused("event.channel", "event.payload", "event.key", "event.headers")} LIMIT 1;
        IF FOUND THEN
            {_refusal("refused.channel", "refused.payload", "refused.key", "refused.headers")}
        END IF;{_check_readable("channel, payload, key, header", _UNNESTED)}
        INSERT INTO {names.events} (slot, channel, payload, key, headers, uid)
        SELECT {_slot(settings)}, event.channel, event.payload, event.key, event.headers,
            coalesce(event.id, gen_random_uuid())
        FROM unnest($1, $2, $3, $4, $6) AS event (channel, payload, key, headers, id);
        GET DIAGNOSTICS appended = ROW_COUNT;
        IF wake AND appended > 0 AND {HAS_ROOM} THEN
            PERFORM pg_notify('{names.wake_channel}', '');
        END IF;
        RETURN appended;
    END
    $function$
    """


def _refused(channel: str, payload: str, key: str, headers: str) -> str:
    # What `entry_of()` refuses. By the functions, through which alone appenders write: a CHECK of
    # the table would be read and compiled anew by each statement, for each partition. That took 6
    # of the 14 us of an append. strict: else an array of texts would pass for a text
    return f"""{_refused_texts(channel, payload, key)}
            OR (CASE
                WHEN jsonb_typeof({headers}) <> 'object' THEN true
                ELSE octet_length({headers}::text) > {HEADERS_LIMIT} OR jsonb_path_exists(
                    {headers}, 'strict $.* ? (@.type() != "string")'
                )
            END)"""


def _refused_texts(channel: str, payload: str, key: str) -> str:
    return f"""{channel} = '' OR octet_length({channel}) > 63
            OR octet_length({payload}) > {PAYLOAD_LIMIT} OR octet_length({key}) > {KEY_LIMIT}"""


def _refusal(channel: str, payload: str, key: str, headers: str) -> str:
    return f"""
            RAISE EXCEPTION
                'asyncnotify: a channel must have 1 to 63 bytes, a key up to {KEY_LIMIT}, and'
                ' headers must be a JSON object of texts, of up to {HEADERS_LIMIT} bytes; a payload'
                ' may have {PAYLOAD_LIMIT} bytes'
            USING ERRCODE = 'check_violation', DETAIL = format(
                'channel: %L, headers: %L, bytes of the key: %s, bytes of the payload: %s',
                left({channel}, 100), left({headers}::text, 100),
                octet_length({key}), octet_length({payload})
            );"""


def _check_readable(values: str, source: str = "") -> str:
    """Return the statement that fails where readers could not read these values."""
    # A database of the encoding SQL_ASCII holds any bytes, those of others some that stand for no
    # character. Such an event would end the session of everyone who comes to it, again and again
    return f"""
        IF getdatabaseencoding() <> 'UTF8' THEN
            IF getdatabaseencoding() = 'SQL_ASCII' THEN
                PERFORM length(convert_to(concat({values}), 'SQL_ASCII'), 'UTF8'){source};
            ELSE
                PERFORM convert_to(concat({values}), 'UTF8'){source};
            END IF;
        END IF;"""


_UNNESTED: Final = " FROM unnest($1, $2, $3, $4) AS event (channel, payload, key, header)"


def _slot(settings: Settings) -> str:
    """Return the expression for the partition that gets the events of this time."""
    seconds = "date_part('epoch', clock_timestamp())::bigint"
    return f"({seconds} / {settings.slot_seconds} % {settings.ring})::smallint"


# -- ticks ----------------------------------------------------------------------------------------


_NOT_BEFORE_LAST: Final = """greatest(clock_timestamp(), CASE
                WHEN last.taken_at < clock_timestamp() + interval '1 day' THEN last.taken_at
            END)"""
"""The time of a tick that follows ``last``: places are found by time because times ascend, also
where the clock was set back, or a promoted server's is behind. A clock that was a day ahead, or
more, is not followed: events would be kept for as much longer."""


def _tick(names: Names) -> str:
    # The order of the steps is the proof: lock, snapshot, top, own xid. So ticks nest; each event
    # belongs to the first tick that sees its xid and has its id up to top; every event up to top
    # that is not visible has an xid that the snapshot lists, or one from its xmax on and below own.
    # An advisory lock, because the lock of a row would take an xid too early.
    # Pairs, and id + 0: so only the index on xids can be walked, never the ids of the whole table.
    # A function's own setting of synchronous_commit would end with the function, before the commit
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_tick() RETURNS bigint
    {ATTRIBUTES} {_PLANS} AS $function$
    DECLARE
        last {names.ticks};
        snap pg_snapshot;
        ceiling bigint;
        fresh bigint;
        late bigint;
        final_id bigint;
        final_late bigint;
    BEGIN
        IF pg_is_in_recovery() THEN
            RAISE EXCEPTION 'asyncnotify: no tick can be taken on a standby'
            USING ERRCODE = '{ON_STANDBY}';
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed'
            OR pg_current_xact_id_if_assigned() IS NOT NULL
        THEN
            RAISE EXCEPTION 'asyncnotify: a tick needs a READ COMMITTED transaction of its own'
            USING ERRCODE = '{IN_TRANSACTION}';
        END IF;
        PERFORM pg_advisory_xact_lock({names.lock_key("tick")});
        SELECT * INTO STRICT last FROM {names.ticks} ORDER BY tick DESC LIMIT 1;
        IF NOT EXISTS (
            SELECT FROM {names.epochs} AS known, pg_control_system() AS server
            WHERE known.epoch = last.epoch
                AND known.system_identifier = server.system_identifier
                AND known.timeline = {TIMELINE}
        ) THEN
            PERFORM {names.prefix}_begin_epoch();
            SELECT * INTO STRICT last FROM {names.ticks} ORDER BY tick DESC LIMIT 1;
            RETURN last.tick;
        END IF;
        snap := pg_current_snapshot();
        ceiling := (SELECT last_value - (NOT is_called)::int FROM {names.sequence});
        ceiling := least(ceiling, last.top + {MOST_TICK_IDS});
        SELECT count(*), coalesce(max(id), 0) INTO fresh, final_id FROM {names.events}
        WHERE id > last.top AND id <= ceiling AND pg_visible_in_snapshot(x, snap);
        SELECT count(*), coalesce(max(event.id), 0) INTO late, final_late
        FROM pg_snapshot_xip(last.snapshot) AS running
        CROSS JOIN LATERAL (
            SELECT id FROM {names.events}
            WHERE (x, id) > (running, last.base) AND (x, id) <= (running, last.top)
        ) AS event
        WHERE pg_visible_in_snapshot(running, snap);
        fresh := fresh + late;
        final_id := greatest(final_id, final_late);
        SELECT count(*), coalesce(max(id), 0) INTO late, final_late FROM {names.events}
        WHERE x >= pg_snapshot_xmax(last.snapshot) AND x < last.own
            AND id + 0 > last.base AND id + 0 <= last.top AND pg_visible_in_snapshot(x, snap);
        fresh := fresh + late;
        final_id := greatest(final_id, final_late);
        IF fresh = 0 AND ceiling - last.top < {EMPTY_TICK_IDS} THEN
            RETURN last.tick;
        END IF;
        IF current_setting('synchronous_commit') = 'off' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;
        INSERT INTO {names.ticks} (tick, epoch, base, snapshot, own, top, final, total, taken_at)
        VALUES (
            last.tick + 1, last.epoch, last.base, snap,
            pg_current_xact_id(), ceiling, final_id, last.total + fresh, {_NOT_BEFORE_LAST}
        );
        RETURN last.tick + 1;
    END
    $function$
    """


def _news(names: Names) -> str:
    # In one round trip. The second statement has a snapshot of its own, and sees the tick
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_news(first bigint, most integer)
    RETURNS SETOF {names.ticks} {ATTRIBUTES} {_PLANS} AS $function$
    BEGIN
        PERFORM {names.prefix}_tick();
        RETURN QUERY SELECT * FROM {names.ticks} WHERE tick >= first ORDER BY tick LIMIT most;
    END
    $function$
    """


def _first_tick(names: Names) -> str:
    # Volatile, so that it has a snapshot of its own: that of the statement which calls it may be
    # older than a TRUNCATE for which that statement has waited
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_first_tick() RETURNS bigint
    {ATTRIBUTES} SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $function$
    BEGIN
        RETURN (
            SELECT tick FROM {names.ticks} WHERE {not_removed(names)} ORDER BY tick LIMIT 1
        );
    END
    $function$
    """


def _begin_epoch(names: Names) -> str:
    # Called by tick(), under its lock. On a new timeline the xids go on as they were. In a copy of
    # the database the rows' xids are of another cluster: all rows count as committed, and appends
    # are locked out for a moment, so that none is under way. Sequences may be behind the rows:
    # logical replication does not copy them
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_begin_epoch() RETURNS void
    {ATTRIBUTES} {_PLANS} AS $function$
    DECLARE
        last {names.ticks};
        identifier bigint := (SELECT system_identifier FROM pg_control_system());
        is_copy bool;
    BEGIN
        SELECT * INTO STRICT last FROM {names.ticks} ORDER BY tick DESC LIMIT 1;
        last.final := 0;
        is_copy := identifier <> (
            SELECT system_identifier FROM {names.epochs} WHERE epoch = last.epoch
        );
        IF is_copy THEN
            PERFORM set_config('lock_timeout', '2s', true);
            LOCK TABLE {names.events} IN SHARE MODE;
            PERFORM setval('{names.sequence}', greatest(
                (SELECT last_value FROM {names.sequence}),
                (SELECT id FROM {names.events} ORDER BY id DESC LIMIT 1), last.top, 1
            ));
        END IF;
        PERFORM set_config('synchronous_commit', 'on', true);
        INSERT INTO {names.epochs} (epoch, system_identifier, timeline, first_tick)
        VALUES (last.epoch + 1, identifier, {TIMELINE}, last.tick + 1);
        IF is_copy THEN
            SELECT last.total + count(*), coalesce(max(id), 0) INTO last.total, last.final
            FROM {names.events}
            WHERE id > last.base
                AND (id > last.top OR NOT pg_visible_in_snapshot(x, last.snapshot));
            last.base := (SELECT last_value FROM {names.sequence});
            last.top := last.base;
            last.snapshot := pg_current_snapshot();
            last.own := pg_current_xact_id();
        END IF;
        INSERT INTO {names.ticks} (
            tick, epoch, base, snapshot, own, top, final, total, whole, taken_at
        )
        VALUES (
            last.tick + 1, last.epoch + 1, last.base, last.snapshot,
            last.own, last.top, last.final, last.total, is_copy, {_NOT_BEFORE_LAST}
        );
    END
    $function$
    """
