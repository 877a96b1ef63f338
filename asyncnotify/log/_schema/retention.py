"""The function that removes old events: it empties a partition, without DDL and without bloat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.log._bounds import MOST_TICKS
from asyncnotify.log._schema.cursors import ATTRIBUTES
from asyncnotify.log._schema.tables import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncnotify.log._names import Names

NOT_DONE: Final = -1
"""What ``expire()`` returns where it has removed ticks, and has to be called again for more."""

RETENTION_FUNCTIONS: Final = ("expire()", "consumed_up_to()")


def functions_of_retention(names: Names, slot: str) -> Iterator[str]:
    """
    Yield the statements that make or replace the functions.

    Args:
        names: Of the log.
        slot: The expression for the partition that gets the events of this time.
    """
    yield _consumed_up_to(names)
    yield _expire(names, slot)


def _consumed_up_to(names: Names) -> str:
    """The newest tick that every consumer has behind it; null without consumers."""
    # A consumer whose tick has been removed stands at the oldest one that is kept
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_consumed_up_to() RETURNS bigint
    {ATTRIBUTES} AS $function$
    BEGIN
        RETURN (
            SELECT min(CASE
                WHEN t.tick IS NULL THEN least(c.tick, {names.prefix}_first_tick())
                WHEN c.id >= t.final THEN c.tick ELSE c.tick - 1
            END)
            FROM {names.consumers} AS c LEFT JOIN {names.ticks} AS t ON t.tick = c.tick
        );
    END
    $function$
    """


def _note_left_behind(names: Names) -> str:
    """Return the statement that notes what they have read whose place is going to be removed."""
    # Who has its row locked serves the consumer now, and knows. To wait for it would take as long
    # as its handler does
    return f"""
                UPDATE {names.consumers} AS c
                SET behind_total = behind.total, behind_since = behind.taken_at,
                    behind_is_exact = behind.tick = c.tick
                FROM {names.ticks} AS behind
                WHERE behind.tick < floor_tick.tick AND behind.tick = CASE WHEN c.id >= (
                    SELECT own.final FROM {names.ticks} AS own WHERE own.tick = c.tick
                ) THEN c.tick ELSE c.tick - 1 END
                AND (c.consumer, c.bucket) IN (
                    SELECT free.consumer, free.bucket FROM {names.consumers} AS free
                    WHERE free.tick <= floor_tick.tick FOR NO KEY UPDATE SKIP LOCKED
                );"""


def _expire(names: Names, slot: str) -> str:
    # One partition a call, so that a transaction holds one lock. Those who append lock their own
    # partition and the parent, never this one. What nobody may miss is what the new oldest tick
    # does not see; rows with ids up to its base are of an older epoch, and count as seen.
    # The new oldest tick is as old as the events, too: where none was taken for a while it sees
    # young ones, which nobody could reach any more.
    # Ticks nest: the first one that sees all is found by halves. As a rule it is the very first.
    # The ticks go first: their number is not bounded, and the lock has to be short. That it can be
    # had is tried before: beside a transaction that has it all ticks would be removed, and come
    # back, again and again. Under the lock the partition is looked at once more: a transaction may
    # have written to it, and have ended since
    is_kept = f"""floor_tick.tick IS NULL
                OR clock_timestamp() - floor_tick.taken_at < settings.retention
                OR ({names.prefix}_consumed_up_to() < floor_tick.tick AND (
                    settings.keep_at_most IS NULL
                    OR clock_timestamp() - floor_tick.taken_at < settings.keep_at_most
                ))"""
    return f"""
    CREATE OR REPLACE FUNCTION {names.prefix}_expire() RETURNS integer
    {ATTRIBUTES} SET enable_seqscan = off SET jit = off AS $function$
    DECLARE
        settings {REGISTRY};
        leaf text;
        all_seen text;
        newest bigint;
        again bigint;
        age interval;
        floor_tick {names.ticks};
        probed {names.ticks};
        low bigint;
        high bigint;
        middle bigint;
        is_seen bool;
        is_free bool;
        is_part bool;
    BEGIN
        IF NOT pg_try_advisory_xact_lock({names.lock_key("expire")}) THEN
            RETURN NULL;
        END IF;
        SELECT * INTO STRICT settings FROM {REGISTRY} WHERE name = '{names.log}';
        FOR number IN 0 .. settings.ring - 1 LOOP
            CONTINUE WHEN number = {slot};
            leaf := '{names.events}_' || number;
            all_seen := format('SELECT NOT EXISTS (SELECT FROM %s WHERE x >= $2 AND id > $3'
                ' AND NOT pg_visible_in_snapshot(x, $1))', leaf);
            EXECUTE format('SELECT id, clock_timestamp() - appended_at FROM %s'
                ' ORDER BY id DESC LIMIT 1', leaf) INTO newest, age;
            CONTINUE WHEN newest IS NULL OR age < settings.retention;
            SELECT * INTO floor_tick FROM {names.ticks}
            WHERE top >= newest ORDER BY top, tick LIMIT 1;
            CONTINUE WHEN {is_kept};
            low := floor_tick.tick;
            high := 1 + (SELECT tick FROM {names.ticks} ORDER BY tick DESC LIMIT 1);
            middle := low;
            WHILE low < high LOOP
                SELECT * INTO STRICT probed FROM {names.ticks} WHERE tick = middle;
                EXECUTE all_seen INTO is_seen USING probed.snapshot,
                    pg_snapshot_xmin(probed.snapshot), probed.base;
                IF is_seen THEN
                    high := middle;
                    floor_tick := probed;
                ELSE
                    low := middle + 1;
                END IF;
                middle := (low + high) / 2;
            END LOOP;
            CONTINUE WHEN floor_tick.tick <> high OR {is_kept};
            BEGIN
                is_free := false;
                EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
                is_free := true;
                RAISE EXCEPTION 'is given back' USING ERRCODE = '55P03';
            EXCEPTION WHEN lock_not_available THEN
                CONTINUE WHEN NOT is_free;
            END;
            is_part := floor_tick.tick - settings.first_tick > {MOST_TICKS};
            IF is_part THEN
                SELECT * INTO STRICT floor_tick FROM {names.ticks}
                WHERE tick >= settings.first_tick + {MOST_TICKS} ORDER BY tick LIMIT 1;
            END IF;
            BEGIN
                {_note_left_behind(names)}
                DELETE FROM {names.ticks}
                WHERE tick >= settings.first_tick AND tick < floor_tick.tick;
                UPDATE {REGISTRY} SET first_tick = floor_tick.tick WHERE name = '{names.log}';
                IF is_part THEN
                    RETURN {NOT_DONE};
                END IF;
                EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
                EXECUTE format('SELECT id FROM %s ORDER BY id DESC LIMIT 1', leaf) INTO again;
                EXECUTE all_seen INTO is_seen USING floor_tick.snapshot,
                    pg_snapshot_xmin(floor_tick.snapshot), floor_tick.base;
                IF again <> newest OR NOT is_seen THEN
                    RAISE EXCEPTION 'in use' USING ERRCODE = '55P03';
                END IF;
                EXECUTE format('TRUNCATE TABLE ONLY %s', leaf);
                RETURN number;
            EXCEPTION WHEN lock_not_available THEN
                CONTINUE;
            END;
        END LOOP;
        RETURN NULL;
    END
    $function$
    """
