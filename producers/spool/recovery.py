"""What a boot left open, learned from its events: so that the next boot can end it in the old one's name."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from producers.frames.directory import Footage
from producers.spool.segment import Kind, Row
from schemas.codec import AvroSchema, decode, event_type
from schemas.events import (
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    EpisodeStarted,
    Event,
    Intervention,
    InterventionPhase,
    RobotEvent,
    Step,
)
from schemas.topics import ROBOT_EPISODES, ROBOT_INTERVENTIONS


@dataclass
class OpenEpisode:
    """An episode that has begun and not ended; `intervention` is its open one's BEGIN."""

    episode_id: str
    traceparent: str
    first_sequence: int
    step_count: int = 0
    intervention_count: int = 0
    intervention: dict[str, Any] | None = None


@dataclass
class Tail:
    """Where a boot's events have come to."""

    next_sequence: int = 0
    episode: OpenEpisode | None = None

    @classmethod
    def from_json(cls, text: str) -> Tail:
        """As `to_json` wrote it."""
        fields = json.loads(text)
        episode = fields["episode"]
        return cls(fields["next_sequence"], None if episode is None else OpenEpisode(**episode))

    def to_json(self) -> str:
        """As text, for the first event of the next file."""
        return json.dumps(asdict(self))

    def note(self, event: Event, traceparent: bytes) -> None:
        """An event was recorded."""
        if not isinstance(event, RobotEvent):
            return
        self.next_sequence = event.sequence + 1
        episode = self.episode
        if isinstance(event, Step):
            if episode is not None:
                episode.step_count = event.index + 1
        elif isinstance(event, Intervention):
            if episode is not None:
                self._note_edge(episode, event)
        elif isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeStarted):
            self.episode = OpenEpisode(event.episode_id, traceparent.decode(), event.sequence)
        elif isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeEnded):
            self.episode = None

    def note_steps(self, count: int) -> None:
        """So many more steps were recorded."""
        self.next_sequence += count
        if self.episode is not None:
            self.episode.step_count += count

    def _note_edge(self, episode: OpenEpisode, event: Intervention) -> None:
        if event.phase is InterventionPhase.BEGIN:
            episode.intervention_count += 1
            episode.intervention = {
                "intervention_id": event.intervention_id,
                "operator": event.operator,
                "reason": event.reason,
                "first_step": event.first_step,
            }
        else:
            episode.intervention = None


def tail_of(carry: str | None, rows: list[Row]) -> Tail:
    """Where a boot had come to, by its last file.

    Raises:
        UndecodableEvent: an event is not what its schema says.
    """
    tail = Tail() if carry is None else Tail.from_json(carry)
    for row in rows:
        tail.note(decode(event_type(row.kind.record), row.body, writer_schema(row.kind)), row.traceparent)
    return tail


@functools.cache
def writer_schema(kind: Kind) -> AvroSchema:
    """The schema that bodies of a kind were written with."""
    return AvroSchema(kind.record, kind.version, kind.schema)


def closing_events(
    tail: Tail, robot_id: str, boot_epoch: int, broke_off_at: float, footage: Footage | None = None
) -> list[tuple[str, Event]]:
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
    events: list[tuple[str, Event]] = []
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
