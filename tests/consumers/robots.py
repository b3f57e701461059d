"""Emulated robots: the events of whole episodes, as a robot's client sends them and as Kafka holds them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import uuid_utils

from consumers.decode import Decoded, decode
from consumers.intake import Intake
from consumers.records import Origin
from infra.decoder import SchemaLookup
from schemas import codec
from schemas.codec import AvroSchema
from schemas.events import (
    Actor,
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    EpisodeLabelled,
    EpisodeSource,
    EpisodeStarted,
    Event,
    Feature,
    FrameSegment,
    FramesRecorded,
    Intervention,
    InterventionPhase,
    Label,
    RobotEvent,
    Step,
)
from schemas.topics import EPISODE_LABELS, ROBOT_EPISODES, ROBOT_INTERVENTIONS, ROBOT_STEPS

STATE, ACTION = 3, 2
FEATURES = (Feature(name="state", shape=(STATE,)), Feature(name="action", shape=(ACTION,)))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA_IDS = {"step": 1, "intervention": 2, "episode_boundary": 3, "episode_labelled": 4}
TOPIC_OF: dict[type[Event], str] = {
    Step: ROBOT_STEPS,
    Intervention: ROBOT_INTERVENTIONS,
    EpisodeBoundary: ROBOT_EPISODES,
    EpisodeLabelled: EPISODE_LABELS,
}


def schema_of(schema_id: int, record: str) -> AvroSchema:
    """A registry that knows the schemas of what makes episodes."""
    assert SCHEMA_IDS[record] == schema_id
    return codec.latest(record)


def uuid7() -> str:
    return str(uuid_utils.uuid7())


def vector(size: int, value: float) -> bytes:
    return np.full(size, value, "<f4").tobytes()


def label(episode_id: str, minutes: float = 0.0, robot_id: str = "robot-1", **changes: Any) -> EpisodeLabelled:
    """A label that says nothing but `changes`, `minutes` after the beginning of time."""
    fields = {"label_id": uuid7(), "author": "ann", "reason": "seen on video"}
    said = Label(**{**fields, "labelled_at": BEGIN + timedelta(minutes=minutes), **changes})
    return EpisodeLabelled(episode_id=episode_id, robot_id=robot_id, label=said)


class Robot:
    """Makes events with a gapless sequence; the caller decides what becomes of them."""

    def __init__(self, robot_id: str = "robot-1", boot_epoch: int = 1_700_000_000_000) -> None:
        self.robot_id = robot_id
        self.boot_epoch = boot_epoch
        self.sequence = 0

    def _common(self, episode_id: str) -> dict[str, Any]:
        common = {
            "episode_id": episode_id,
            "robot_id": self.robot_id,
            "boot_epoch": self.boot_epoch,
            "sequence": self.sequence,
            "captured_at": BEGIN + timedelta(milliseconds=20 * self.sequence),
        }
        self.sequence += 1
        return common

    def start(self, episode_id: str, **changes: Any) -> EpisodeBoundary:
        body = EpisodeStarted(
            task="push",
            instruction="push the puck",
            embodiment="arm",
            features=FEATURES,
            fps=50.0,
            source=EpisodeSource.ONLINE,
        )
        return EpisodeBoundary(**self._common(episode_id), body=body.model_copy(update=changes))

    def step(self, episode_id: str, index: int, **changes: Any) -> Step:
        fields: dict[str, Any] = {
            "index": index,
            "actor": Actor.POLICY,
            "policy_version": 1,
            "state": vector(STATE, index),
            "action": vector(ACTION, -index),
            "reward": float(index),
        }
        return Step(**self._common(episode_id), **{**fields, **changes})

    def intervention(
        self, episode_id: str, intervention_id: str, phase: InterventionPhase, at: int
    ) -> Intervention:
        return Intervention(
            **self._common(episode_id),
            intervention_id=intervention_id,
            phase=phase,
            operator="ann",
            reason="slipping",
            first_step=at,
            last_step=at if phase is InterventionPhase.END else None,
        )

    def frames(self, episode_id: str, camera: str, segments: Sequence[FrameSegment]) -> EpisodeBoundary:
        body = FramesRecorded(camera=camera, segments=tuple(segments))
        return EpisodeBoundary(**self._common(episode_id), body=body)

    def end(self, episode_id: str, first_sequence: int, steps: int, **changes: Any) -> EpisodeBoundary:
        body = EpisodeEnded(
            first_sequence=first_sequence,
            end=EpisodeEnd.TERMINATED,
            success=True,
            step_count=steps,
            intervention_count=0,
        )
        return EpisodeBoundary(**self._common(episode_id), body=body.model_copy(update=changes))

    def episode(self, steps: int, *, intervene_at: int | None = None, ends: bool = True) -> list[RobotEvent]:
        """All events of one episode, in the order of their sequence."""
        episode_id = uuid7()
        first = self.sequence
        events: list[RobotEvent] = [self.start(episode_id)]
        for index in range(steps):
            if index == intervene_at:
                intervention_id = uuid7()
                events.append(self.intervention(episode_id, intervention_id, InterventionPhase.BEGIN, index))
                events.append(self.step(episode_id, index, actor=Actor.HUMAN, proposed_action=vector(ACTION, 9)))
                events.append(self.intervention(episode_id, intervention_id, InterventionPhase.END, index))
            else:
                events.append(self.step(episode_id, index))
        if ends:
            events.append(self.end(episode_id, first, steps))
        return events


def frame(event: Event) -> bytes:
    return codec.frame(SCHEMA_IDS[event.record], codec.encode(event))


class Consumed:
    """A record of the log, with the methods of Kafka's client."""

    def __init__(self, place: Origin) -> None:
        self.place = place

    def topic(self) -> str:
        return self.place.topic

    def partition(self) -> int:
        return self.place.partition

    def offset(self) -> int:
        return self.place.offset

    def timestamp(self) -> tuple[int, int]:
        return 2, self.place.appended_ms

    def key(self) -> bytes | None:
        return self.place.key

    def value(self) -> bytes | None:
        return self.place.value


def decoded(places: Sequence[Origin], look_up: SchemaLookup | None = None) -> Decoded:
    """What a batch of partition number 0 holds."""
    return decode(Intake.of([Consumed(place) for place in places]), look_up or schema_of)[0]


class Log:
    """The topics that make episodes, of one partition number, as lists of records."""

    def __init__(self) -> None:
        self.records: dict[str, list[Origin]] = {topic: [] for topic in TOPIC_OF.values()}

    def append(self, event: RobotEvent | EpisodeLabelled, at_ms: int = 0) -> Origin:
        return self.append_raw(TOPIC_OF[type(event)], event.robot_id.encode(), frame(event), at_ms)

    def append_raw(self, topic: str, key: bytes | None, value: bytes | None, at_ms: int = 0) -> Origin:
        place = Origin(topic, 0, len(self.records[topic]), at_ms, key, value)
        self.records[topic].append(place)
        return place

    def all(self) -> list[Origin]:
        return [place for places in self.records.values() for place in places]


def origins(events: Sequence[RobotEvent]) -> list[Origin]:
    """Events as records of a fresh log."""
    log = Log()
    return [log.append(event) for event in events]
