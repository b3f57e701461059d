"""Events as rows of ClickHouse's tables (`infra/clickhouse/migrations/`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from consumers.dead_letters import headers
from infra.decoder import event_in
from infra.kafka import Message
from infra.registry import Registry
from schemas import codec
from schemas.events import (
    EpisodeMaterialized,
    Event,
    Heartbeat,
    PolicyActivated,
    PolicyRollout,
    PolicyVersion,
    TrainingLineage,
    TrainingProgress,
)
from schemas.topics import TOPICS

Row = Mapping[str, object]

_EPISODE_COLUMNS = (
    "revision",
    "robot_id",
    "boot_epoch",
    "task",
    "instruction",
    "embodiment",
    "policy",
    "fps",
    "success",
    "payload_uri",
    "payload_sha256",
    "payload_bytes",
    "step_count",
    "human_step_count",
    "reward_sum",
    "missing_count",
    "frames_dropped",
    "started_at",
    "ended_at",
    "appended_at",
    "materialized_at",
    "simulated_ended_at",
    "recorded_success",
    "excluded",
)
_PROGRESS_COLUMNS = (
    "policy",
    "learner_step",
    "reported_at",
    "loss",
    "online_share",
    "episodes_admitted",
    "steps_admitted",
    "simulated_seconds",
    "updates_skipped",
)
_HEARTBEAT_COLUMNS = (
    "robot_id",
    "boot_epoch",
    "reported_at",
    "spool_depth",
    "spool_age_seconds",
    "policy",
    "policy_version",
    "episodes_ended",
    "simulated_seconds",
    "waiting",
    "spool_bytes",
    "clock_offset_seconds",
    "clock_offset_error_seconds",
    "policy_wanted",
    "frames_dropped",
)
"""Columns that are named like the event's fields, and hold the same."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row, as values by column, and the table that it belongs to."""

    table: str
    values: Row


def rows_of(event: Event, partition: int, offset: int, appended_at: datetime | None = None) -> list[TableRow]:
    """Rows that an event of the given place turns into.

    Args:
        event: what happened.
        partition, offset: where it lies in its topic.
        appended_at: when Kafka had it. Heartbeats keep it; without it, they came when their robots say.

    Raises:
        TypeError: no table holds such events.
        ValueError: an id is not a UUID.
    """
    if isinstance(event, Heartbeat):
        return _heartbeat(event, appended_at or event.reported_at)
    make = _MAKERS.get(type(event))
    if make is None:
        raise TypeError(f"no table holds {type(event).__name__}")
    return make(event, partition, offset)


def rows_of_message(message: Message, registry: Registry) -> list[TableRow]:
    """Rows that a record of one of the index's topics turns into.

    Raises:
        SchemaError, KeyError, TypeError, ValueError: no table can hold it.
        RegistryUnavailable: its schema could not be looked up.
    """
    topic = TOPICS[str(message.topic())]
    if topic.event is None:
        return [dead_letter_row(message)]
    event = event_in(message.value(), codec.event_type(topic.event), registry.schema_of)
    return rows_of(event, int(message.partition() or 0), int(message.offset() or 0), _appended_at(message))


def dead_letter_row(message: Message) -> TableRow:
    """The row of a record on dead-letters; `value` keeps its bytes.

    Raises:
        KeyError, ValueError: headers are missing or wrong.
    """
    found = headers(message)
    key, value = message.key(), message.value()
    return TableRow(
        "raw_dead_letters",
        {
            "topic": found["topic"],
            "partition": int(found["partition"]),
            "offset": int(found["offset"]),
            "robot_id": _text(key),
            "reason": found["reason"],
            "error": found["error"],
            "value": value if isinstance(value, bytes) else b"",
            "appended_at": _appended_at(message),
        },
    )


def _appended_at(message: Message) -> datetime:
    """By the broker's clock, as the topics' configuration says."""
    return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _episode(event: EpisodeMaterialized, partition: int, offset: int) -> list[TableRow]:
    episode_id = UUID(event.episode_id)
    row = {name: getattr(event, name) for name in _EPISODE_COLUMNS} | {
        "episode_id": episode_id,
        "source": event.source.value,
        "end": event.end.value,
        "closed_by": event.closed_by.value,
        "rejected_count": sum(r.last - r.first + 1 for r in event.rejected),
        "policy_versions": list(event.policy_versions),
        "human_ranges": [(r.first, r.last) for r in event.human_ranges],
        "intervention_count": len(event.interventions),
        "source_offsets": [(o.topic, o.partition, o.first, o.last) for o in event.source_offsets],
        "labels": [
            (UUID(one.label_id), one.author, one.reason, one.verdict, one.excluded, one.labelled_at)
            for one in event.labels
        ],
        "stream_partition": partition,
        "stream_offset": offset,
    }
    return [TableRow("raw_episodes", row)] + [
        TableRow(
            "raw_interventions",
            {
                "episode_id": episode_id,
                "intervention_id": UUID(span.intervention_id),
                "revision": event.revision,
                "robot_id": event.robot_id,
                "task": event.task,
                "source": event.source.value,
                "excluded": event.excluded,
                "operator": span.operator,
                "reason": span.reason,
                "first_step": span.first_step,
                "last_step": span.last_step,
                "began_at": span.began_at,
                "ended_at": span.ended_at,
            },
        )
        for span in event.interventions
    ]


def _plain(table: str, *names: str) -> Callable[[Event, int, int], list[TableRow]]:
    """Rows that take all their columns from the event's fields of the same names."""

    def make(event: Event, _partition: int, _offset: int) -> list[TableRow]:
        values = {name: getattr(event, name) for name in names}
        return [TableRow(table, {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})]

    return make


def _heartbeat(event: Heartbeat, received_at: datetime) -> list[TableRow]:
    row = {name: getattr(event, name) for name in _HEARTBEAT_COLUMNS}
    return [TableRow("raw_robot_status", row | {"errors": list(event.errors), "received_at": received_at})]


def _progress(event: TrainingProgress, _partition: int, _offset: int) -> list[TableRow]:
    row = {name: getattr(event, name) for name in _PROGRESS_COLUMNS}
    row["groups"] = [(g.task, g.online, g.draws, g.loss) for g in event.groups]
    row["mixing"] = [(m.task, m.first_step, list(m.online_shares)) for m in event.mixing]
    row["metrics"] = {metric.name: metric.value for metric in event.metrics}
    return [TableRow("raw_training_progress", row)] + [
        TableRow(
            "raw_training_admissions",
            {
                "policy": event.policy,
                "episode_id": UUID(admission.episode_id),
                "revision": admission.revision,
                "seen_at": admission.seen_at,
            },
        )
        for admission in event.admitted
    ]


def _lineage(event: TrainingLineage, _partition: int, _offset: int) -> list[TableRow]:
    return [
        TableRow(
            "raw_training_lineage",
            {
                "policy": event.policy,
                "version": event.version,
                "episode_id": UUID(drawn.episode_id),
                "revision": drawn.revision,
                "draws": drawn.draws,
                "reported_at": event.reported_at,
            },
        )
        for drawn in event.episodes
    ]


def _rollout(event: PolicyRollout, _partition: int, _offset: int) -> list[TableRow]:
    names = ("policy", "generation", "current", "previous", "author", "reason", "written_at", "key_id")
    canary = event.canary
    row = {name: getattr(event, name) for name in names} | {
        "mode": event.mode.value,
        "canary": canary.version if canary else None,
        "canary_fraction": canary.fraction if canary else None,
        "canary_robots": list(canary.robots) if canary else [],
        "queued": [waiting.version for waiting in event.queued],
        "pins": [(pin.robot_id, pin.version) for pin in event.pins],
        "restored": event.restored.version if event.restored else None,
    }
    return [TableRow("raw_policy_rollouts", row)]


_MAKERS: dict[type[Event], Callable[..., list[TableRow]]] = {
    EpisodeMaterialized: _episode,
    TrainingProgress: _progress,
    TrainingLineage: _lineage,
    PolicyVersion: _plain(
        "raw_policy_versions",
        "policy",
        "version",
        "artifact_uri",
        "sha256",
        "size_bytes",
        "key_id",
        "parent_version",
        "algorithm",
        "learner_step",
        "episodes_admitted",
        "config",
        "code_version",
        "published_at",
        "simulated_seconds",
    ),
    PolicyRollout: _rollout,
    PolicyActivated: _plain(
        "raw_policy_activations",
        "robot_id",
        "boot_epoch",
        "policy",
        "version",
        "sha256",
        "activated_at",
    ),
}


def columns_of(rows: Sequence[TableRow]) -> list[str]:
    """Column names that rows of one table share, in order."""
    return list(rows[0].values)
