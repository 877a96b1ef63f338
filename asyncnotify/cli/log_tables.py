"""What a log tells of itself, as tables or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncnotify.cli.items import fields_of
from asyncnotify.cli.output import print_json, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncnotify.log import ConsumerStatus, DeadLetter, LogStatus

__all__ = ["show_consumers", "show_dead_letters", "show_status"]

_MIB = 1_048_576


def show_status(status: LogStatus, *, json: bool) -> None:
    """Print the state of a log."""
    if json:
        print_json(_status_fields(status))
        return
    rows: list[tuple[str, object]] = [
        ("end", status.end),
        ("events appended", f"{status.events:,}"),
        ("all kept since", f"{status.kept_since.astimezone():%Y-%m-%d %H:%M:%S%z}"),
        ("size", f"{status.size / _MIB:,.1f} MiB"),
        ("retention", status.retention),
        ("limit", "none" if status.limit is None else status.limit),
        ("schema version", status.version),
    ]
    if (writer := status.oldest_writer) is not None:
        who = writer.prepared or f"pid {writer.pid}"
        rows.append(("oldest writer", f"{who} in {writer.database}, open for {writer.age}"))
    show_table(f"log {status.name}", ("", ""), rows)
    if status.consumers:
        show_consumers(status, json=False)


def _status_fields(status: LogStatus) -> dict[str, Any]:
    writer = status.oldest_writer
    return {
        "name": status.name,
        "version": status.version,
        "end": str(status.end),
        "events": status.events,
        "kept_since": status.kept_since.isoformat(),
        "size": status.size,
        "retention_seconds": status.retention.total_seconds(),
        "limit_seconds": None if status.limit is None else status.limit.total_seconds(),
        "consumers": [*map(_consumer_fields, status.consumers)],
        "oldest_writer": None
        if writer is None
        else {
            "pid": writer.pid,
            "prepared": writer.prepared,
            "database": writer.database,
            "age_seconds": writer.age.total_seconds(),
        },
    }


def _consumer_fields(consumer: ConsumerStatus) -> dict[str, Any]:
    return {
        "name": consumer.name,
        "bucket": consumer.bucket,
        "buckets": consumer.buckets,
        "position": str(consumer.position),
        "lag_events": consumer.lag_events,
        "lag_seconds": round(consumer.lag_seconds, 3),
        "pid": consumer.pid,
        "is_served": consumer.is_served,
        "is_paused": consumer.is_paused,
        "dead_letters": consumer.dead_letters,
        "committed_at": consumer.committed_at.isoformat(),
        "holds_retention": consumer.holds_retention,
    }


def show_consumers(status: LogStatus, *, json: bool) -> None:
    """Print where each consumer of a log stands: a line of JSON for each, or a table."""
    if json:
        for consumer in status.consumers:
            print_json(_consumer_fields(consumer))
        return
    header = ("consumer", "position", "lag", "for", "served by", "dead letters")
    show_table(f"consumers of {status.name}", header, [*map(_consumer_row, status.consumers)])


def _consumer_row(consumer: ConsumerStatus) -> tuple[object, ...]:
    bucket = f" {consumer.bucket + 1}/{consumer.buckets}" if consumer.buckets > 1 else ""
    served = f"pid {consumer.pid}" if consumer.is_served else "nobody"
    return (
        f"{consumer.name}{bucket}",
        consumer.position,
        f"{consumer.lag_events:,}",
        f"{consumer.lag_seconds:,.1f} s",
        "paused" if consumer.is_paused else served,
        consumer.dead_letters,
    )


def show_dead_letters(letters: Sequence[DeadLetter], *, json: bool) -> None:
    """Print dead letters: a line of JSON for each, or a table."""
    if json:
        for letter in letters:
            print_json(_letter_fields(letter))
        return
    header = ("consumer", "event", "channel", "tries", "died at", "error")
    show_table(f"dead letters: {len(letters)}", header, [*map(_letter_row, letters)])


def _letter_fields(letter: DeadLetter) -> dict[str, Any]:
    return {
        "consumer": letter.consumer,
        "attempts": letter.attempts,
        "error": letter.error,
        "died_at": letter.died_at.isoformat(),
        "event": fields_of(letter.event),
    }


def _letter_row(letter: DeadLetter) -> tuple[object, ...]:
    return (
        letter.consumer,
        letter.event.id,
        letter.event.channel,
        letter.attempts,
        f"{letter.died_at.astimezone():%Y-%m-%d %H:%M}",
        letter.error,
    )
