"""What a boot left open, learned from its events: so that the next boot can end it in the old one's name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from producers.frames.directory import Footage
from producers.spool.segment import Kind, Row
from producers.tail import Tail
from schemas.codec import AvroSchema, decode, event_type
from schemas.events import (
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    Intervention,
    InterventionPhase,
    RobotEvent,
    Step,
)
from schemas.topics import ROBOT_EPISODES, ROBOT_INTERVENTIONS


def tail_of(carry: str | None, rows: Sequence[Row]) -> Tail:
    """Where a boot had come to, by its last file.

    Raises:
        UndecodableEvent: an event is not what its schema says.
    """
    tail = Tail() if carry is None else Tail.from_json(carry)
    steps = [row.kind.record == Step.record for row in rows] + [False]
    for number, row in enumerate(rows):
        if steps[number] and steps[number + 1]:
            continue  # of steps in a row the last one tells all
        tail.note(decode(event_type(row.kind.record), row.body, writer_schema(row.kind)), row.traceparent)
    return tail


@functools.cache
def writer_schema(kind: Kind) -> AvroSchema:
    """The schema that bodies of a kind were written with."""
    return AvroSchema(kind.record, kind.version, kind.schema)


def closing_events(
    tail: Tail, robot_id: str, boot_epoch: int, broke_off_at: float, footage: Footage | None = None
) -> list[tuple[str, RobotEvent]]:
    """What ends the open episode as ABORTED, by topic, in order; none when nothing is open.

    What its cameras left on disk is told first; if some of it was told before the crash, readers find it twice.

    The observation after the last step is not known, so it has none. `captured_at` is when the recording broke off
    (unix seconds), as nearly as is known: when its last event was recorded.
    """
    episode = tail.episode
    if episode is None:
        return []
    common: dict[str, Any] = {
        "episode_id": episode.episode_id,
        "robot_id": robot_id,
        "boot_epoch": boot_epoch,
        "captured_at": datetime.fromtimestamp(broke_off_at, UTC),
    }
    events: list[tuple[str, RobotEvent]] = []
    sequence = tail.next_sequence
    if episode.intervention is not None:
        edge = Intervention(
            **common,
            **episode.intervention,
            sequence=sequence,
            phase=InterventionPhase.END,
            last_step=episode.step_count - 1,
        )
        events.append((ROBOT_INTERVENTIONS, edge))
        sequence += 1
    footage = footage or Footage()
    for body in footage.events:
        events.append((ROBOT_EPISODES, EpisodeBoundary(**common, sequence=sequence, body=body)))
        sequence += 1
    ended = EpisodeEnded(
        first_sequence=episode.first_sequence,
        end=EpisodeEnd.ABORTED,
        step_count=episode.step_count,
        intervention_count=episode.intervention_count,
        frame_count=footage.frame_count,
        frames_dropped=footage.dropped,
    )
    events.append((ROBOT_EPISODES, EpisodeBoundary(**common, sequence=sequence, body=ended)))
    return events
