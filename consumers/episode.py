"""One episode while its events arrive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from consumers.dead_letters import DeadLetter, Reason
from consumers.ranges import RangeSet
from consumers.records import Origin
from consumers.step_buffer import StepBuffer
from consumers.steps import Row
from consumers.vectors import Ints
from schemas import codec
from schemas.events import (
    ClosedBy,
    EpisodeBoundary,
    EpisodeEnded,
    EpisodeStarted,
    FramesRecorded,
    Intervention,
    Label,
    OffsetRange,
    RobotEvent,
)

MAX_INTERVENTION_BYTES = 4 * 2**20
"""Encoded interventions that one episode takes: they all go into its announcement, which is one Kafka record."""
MAX_FRAMES_BYTES = 16 * 2**20
"""Encoded FramesRecorded that one episode takes: half a million segments, or stills."""
EPISODE_BYTES = 3_000
"""Rough cost of an episode without anything in it; as those below, from what 500 of them took."""
_EVENT_BYTES = 2_000
_SEGMENT_BYTES = 1_200
_REJECTED_BYTES = 1_200


@dataclass(slots=True)
class OpenEpisode:
    """Events of one episode seen so far; `seen` and `rejected` hold sequences."""

    episode_id: str
    robot_id: str
    boot_epoch: int
    started: EpisodeBoundary | None = None
    ended: EpisodeBoundary | None = None
    steps: StepBuffer = field(default_factory=StepBuffer)
    early: StepBuffer = field(default_factory=StepBuffer)
    """Steps whose layout is not known yet, with the records that they came from."""
    interventions: list[Intervention] = field(default_factory=list)
    intervention_bytes: int = 0
    labels: tuple[Label, ...] = ()
    """Labels that the stored revision has, in order of time."""
    late_labels: list[tuple[Label, Origin]] = field(default_factory=list)
    """Labels that came after it, with the records that they came from."""
    footage: list[EpisodeBoundary] = field(default_factory=list)
    """What its cameras saw: events with a FramesRecorded."""
    footage_bytes: int = 0
    seen: RangeSet = field(default_factory=RangeSet)
    rejected: RangeSet = field(default_factory=RangeSet)
    rejected_hashes: dict[int, int] = field(default_factory=dict)
    """What the rejected records held, by sequence, to tell the same again from something else."""
    rejected_at: dict[int, Origin] = field(default_factory=dict)
    """Where the rejected records lie, by sequence; without their bytes."""
    others: dict[int, Origin] = field(default_factory=dict)
    """Records that are no steps, by sequence: few, and dead letters if the start never comes."""
    held: list[tuple[int, DeadLetter]] = field(default_factory=list)
    """Rejected records by sequence that wait until it is known what was announced of the episode before."""
    before: RangeSet | None = None
    """Sequences of the newest announced revision, once that was looked up in the object store."""
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Lowest and highest offset by topic."""
    partition: int = 0
    appended_ms: int = 0
    successor_first: int | None = None
    """First sequence of the next episode of this boot, once it started."""
    kept_bytes: int = EPISODE_BYTES
    """Roughly what it holds of memory beside its steps, which stays there until it is stored."""
    _vector_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def start(self) -> EpisodeStarted | None:
        """What the robot said at the beginning, once that arrived."""
        body = self.started.body if self.started else None
        return body if isinstance(body, EpisodeStarted) else None

    @property
    def end(self) -> EpisodeEnded | None:
        """What the robot said at the end, once that arrived."""
        body = self.ended.body if self.ended else None
        return body if isinstance(body, EpisodeEnded) else None

    @property
    def first_sequence(self) -> int | None:
        """Sequence of the start, from the start itself or from the end that names it."""
        if self.started is not None:
            return self.started.sequence
        return self.end.first_sequence if self.end else None

    def vector_bytes(self, name: str) -> int | None:
        """Bytes that the vector `name` must have; None while the start has not arrived."""
        return self._vector_bytes.get(name)

    def touch(self, topic: str, partition: int, offset: int, appended_ms: int) -> None:
        """A record of this episode was read."""
        low, high = self.offsets.get(topic, (offset, offset))
        self.offsets[topic] = (min(low, offset), max(high, offset))
        self.partition = partition
        self.appended_ms = max(self.appended_ms, appended_ms)

    def reject(self, sequence: int, place: Origin) -> None:
        """The record with this sequence is a dead letter."""
        self.rejected.add(sequence)
        self.rejected_hashes[sequence] = hash(place.value)
        self.rejected_at[sequence] = replace(place, key=None, value=None)
        self.kept_bytes += _REJECTED_BYTES

    def hold(self, sequence: int, letter: DeadLetter) -> None:
        """The record with this sequence is a dead letter, unless it was buried before; that is looked up."""
        self.held.append((sequence, letter))
        self.kept_bytes += letter.nbytes

    def let_go(self) -> None:
        """What was held is decided."""
        self.kept_bytes -= sum(letter.nbytes for _, letter in self.held)
        self.held = []

    def letters(self, announced: RangeSet) -> list[DeadLetter]:
        """Dead letters for what is held and not in an announced revision: what is, was buried then."""
        return [letter for sequence, letter in self.held if sequence not in announced]

    def rejected_as(self, sequence: int, value: bytes | None) -> bool:
        """Whether a record with this sequence, and the same bytes, is a dead letter already."""
        return sequence in self.rejected and self.rejected_hashes.get(sequence, hash(value)) == hash(value)

    def stored_steps(self, sequences: Ints) -> dict[int, Row]:
        """Those of the wanted steps, int64[n], that are here, by sequence."""
        found = {}
        for steps, _ in (*self.steps.parts(), *self.early.parts()):
            for at in np.flatnonzero(np.isin(steps.sequence, sequences)).tolist():
                found[int(steps.sequence[at])] = steps.values(at)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the steps take; they can be moved to disk."""
        return self.steps.nbytes + self.early.nbytes

    @property
    def size(self) -> int:
        """Bytes of memory that all of it takes once it is read back."""
        return self.nbytes + self.steps.disk_bytes + self.early.disk_bytes + self.kept_bytes

    def spill(self, folder: Path) -> int:
        """Move the steps to disk; the bytes written.

        Raises:
            OSError: the disk is full or not writable; nothing is lost.
        """
        return self.steps.spill(folder) + self.early.spill(folder)

    def accounted(self) -> RangeSet:
        """Sequences that were seen or rejected."""
        both = RangeSet(self.seen)
        both.update(self.rejected)
        return both

    def holds(self, event: RobotEvent) -> bool:
        """Whether this very event was seen."""
        return event in (self.started, self.ended, *self.interventions, *self.footage)

    def take(self, event: RobotEvent) -> None:
        """Keep an event that is no step; of two starts or ends the first counts."""
        if isinstance(event, Intervention):
            size = len(codec.encode(event))
            self.interventions.append(event)
            self.intervention_bytes += size
            self.kept_bytes += _EVENT_BYTES + 2 * size
        elif isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeStarted):
            if self.started is None:
                self.started = event
                self._vector_bytes = {feature.name: feature.size * 4 for feature in reversed(event.body.features)}
        elif isinstance(event, EpisodeBoundary) and isinstance(event.body, FramesRecorded):
            size = len(codec.encode(event))
            self.footage.append(event)
            self.footage_bytes += size
            self.kept_bytes += _EVENT_BYTES + 2 * size + _SEGMENT_BYTES * len(event.body.segments)
        elif isinstance(event, EpisodeBoundary):
            self.ended = self.ended or event

    def unfit(self, event: RobotEvent) -> tuple[Reason, str] | None:
        """Why an event that is no step cannot be part of the episode, if it cannot."""
        if isinstance(event, EpisodeBoundary) and isinstance(event.body, FramesRecorded):
            size = self.footage_bytes + len(codec.encode(event))
            if size > MAX_FRAMES_BYTES:
                return Reason.EPISODE_FULL, f"{size} bytes of frames' places; an episode takes {MAX_FRAMES_BYTES}"
            return None
        if isinstance(event, EpisodeBoundary) and self.contradicts(event):
            return Reason.CONFLICT, "a second start or end of the episode"
        if isinstance(event, Intervention):
            size = self.intervention_bytes + len(codec.encode(event))
            if size > MAX_INTERVENTION_BYTES:
                text = f"{size} bytes of interventions; an episode takes {MAX_INTERVENTION_BYTES}"
                return Reason.EPISODE_FULL, text
        return None

    def contradicts(self, event: EpisodeBoundary) -> bool:
        """Whether the event is a second start, or a second end, of the episode."""
        there = self.started if isinstance(event.body, EpisodeStarted) else self.ended
        return there is not None

    def followed_by(self, first_sequence: int) -> None:
        """A later episode of the same boot started at this sequence."""
        known = self.successor_first
        self.successor_first = first_sequence if known is None else min(known, first_sequence)

    def closed_by(self) -> ClosedBy | None:
        """Why the episode can be sealed now, if it can."""
        if self.started is None:
            return None
        accounted = self.accounted()
        if self.ended is not None and accounted.covers(self.started.sequence, self.ended.sequence):
            return ClosedBy.COMPLETE
        successor = self.successor_first
        if self.ended is None and successor and accounted.covers(self.started.sequence, successor - 1):
            return ClosedBy.SUCCESSOR
        return None

    def source_offsets(self) -> tuple[OffsetRange, ...]:
        """Where the events lie, by topic."""
        return tuple(
            OffsetRange(topic=topic, partition=self.partition, first=low, last=high)
            for topic, (low, high) in sorted(self.offsets.items())
        )
