"""A fleet's last six hours, made up: twelve versions that get better and need less help."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np

from consumers.assembly import Assembly
from consumers.emitted import EmittedLog
from consumers.payload import Payload, build_payload
from consumers.rows import TableRow
from schemas.codec import encode, frame
from schemas.events import (
    Actor,
    Admission,
    EpisodeDraws,
    EpisodeEnd,
    EpisodeMaterialized,
    EpisodeSource,
    Event,
    Feature,
    Heartbeat,
    InterventionPhase,
    InterventionSpan,
    Label,
    PolicyActivated,
    PolicyRollout,
    PolicyVersion,
    Range,
    RobotEvent,
    RolloutMode,
    Step,
    TrainingLineage,
    TrainingProgress,
    Verdict,
)
from tests.consumers.robots import Log, Robot, decoded, uuid7
from tests.infra.clickhouse.world import golden

LINE = "kitchen"
TASKS = ("fold-towel", "load-rack", "open-drawer", "pour-beans")
ROBOTS = tuple(f"arm-{n}" for n in range(1, 7))
VERSIONS = 12
EPISODES = 480
HOURS = 6.0
LABELLED = 476
"""An online episode of the newest, which a label leaves out."""
BUCKET = "console-tests"
NAMES = ("shoulder", "elbow", "wrist", "lift", "gripper")


def episode_id(at: datetime, number: int) -> str:
    return str(UUID(int=(int(at.timestamp() * 1000) << 80) | 7 << 76 | 0b10 << 62 | number))


class Fleet:
    """Events that end at `now`; the same ones for the same `now`."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._chance = random.Random(3)
        self.episodes = [self._episode(number) for number in range(EPISODES)]
        self.episodes[LABELLED] = self._labelled(self.episodes[LABELLED])
        self.shown, self.payload = self._with_payload()

    def at(self, share: float) -> datetime:
        """A time between the begin of the six hours (0) and now (1)."""
        return self.now - timedelta(hours=HOURS * (1 - share))

    def events(self) -> Iterator[Event]:
        yield from self.episodes
        yield self.shown
        yield from self._versions()
        yield golden(PolicyRollout).model_copy(
            update={
                "policy": LINE,
                "generation": 4,
                "mode": RolloutMode.HOLD,
                "current": VERSIONS - 1,
                "previous": VERSIONS - 2,
                "canary": None,
                "queued": (),
                "pins": (),
                "restored": None,
                "author": "ada",
                "reason": "held while the gripper of arm-3 is changed",
                "written_at": self.at(0.98),
            }
        )
        yield golden(TrainingProgress).model_copy(
            update={
                "policy": LINE,
                "reported_at": self.now,
                "admitted": tuple(
                    Admission(
                        episode_id=e.episode_id,
                        revision=e.revision,
                        seen_at=e.materialized_at + timedelta(milliseconds=80 + n % 50),
                    )
                    for n, e in enumerate(self.episodes)
                ),
            }
        )
        for number, robot in enumerate(ROBOTS):
            yield self.heartbeat(robot, self.now - timedelta(seconds=0.4 * number), spool=number * 7)

    def heartbeat(self, robot: str, at: datetime, *, spool: int, errors: tuple[str, ...] = ()) -> Heartbeat:
        found: Heartbeat = golden(Heartbeat).model_copy(
            update={
                "robot_id": robot,
                "boot_epoch": 3,
                "reported_at": at,
                "spool_depth": spool,
                "spool_age_seconds": 0.02 * spool,
                "spool_bytes": 4096 * spool,
                "policy": LINE,
                "policy_version": VERSIONS - 1,
                "policy_wanted": VERSIONS - 1,
                "frames_dropped": None,
                "episodes_ended": EPISODES // len(ROBOTS),
                "errors": errors,
                "waiting": False,
                "simulated_seconds": None,
                "clock_offset_seconds": 0.0013,
            }
        )
        return found

    def _episode(self, number: int) -> EpisodeMaterialized:
        chance, share = self._chance, number / EPISODES
        version = 1 + int(share * VERSIONS)
        skill = 0.35 + 0.55 * (1 - math.exp(-3 * share)) - 0.06 * (number % 4)
        task, robot = TASKS[number % 4], ROBOTS[number % len(ROBOTS)]
        begin = self.at(share * 0.99)
        steps = chance.randint(120, 300)
        success = chance.random() < skill
        helped = chance.random() > skill
        first = chance.randint(20, steps // 2)
        last = first + chance.randint(10, 40)
        end = begin + timedelta(seconds=steps / 30)
        span = InterventionSpan(
            intervention_id=episode_id(begin, number),
            operator=chance.choice(["ada", "grace"]),
            reason=chance.choice(["wrong motion", "object dropped", "too slow"]),
            first_step=first,
            last_step=last,
            began_at=begin + timedelta(seconds=first / 30),
            ended_at=begin + timedelta(seconds=last / 30),
        )
        arrived = end + timedelta(milliseconds=chance.randint(4, 40))
        changes: dict[str, object] = {
            "episode_id": episode_id(begin, number),
            "revision": 1,
            "robot_id": robot,
            "task": task,
            "instruction": f"{task.replace('-', ' the ').capitalize()}.",
            "source": EpisodeSource.EVALUATION if number % 10 == 9 else EpisodeSource.ONLINE,
            "policy": LINE,
            "policy_versions": (version,),
            "fps": 30.0,
            "success": success,
            "end": EpisodeEnd.TERMINATED if success else EpisodeEnd.TRUNCATED,
            "step_count": steps,
            "human_step_count": last - first + 1 if helped else 0,
            "human_ranges": (Range(first=first, last=last),) if helped else (),
            "interventions": (span,) if helped else (),
            "rejected": (),
            "missing_count": 2 if number % 97 == 0 else 0,
            "started_at": begin,
            "ended_at": end,
            "appended_at": arrived,
            "materialized_at": arrived + timedelta(milliseconds=chance.randint(120, 600)),
            "simulated_ended_at": None,
        }
        found: EpisodeMaterialized = golden(EpisodeMaterialized).model_copy(update=changes)
        return found

    def _labelled(self, episode: EpisodeMaterialized) -> EpisodeMaterialized:
        """The camera was covered, somebody found out: it failed, and is left out."""
        label = Label(
            label_id=episode.episode_id,
            author="ada",
            reason="the camera was covered",
            labelled_at=self.now,
            verdict=Verdict.FAILED,
            excluded=True,
        )
        changes = {"success": False, "recorded_success": True, "excluded": True, "labels": (label,), "revision": 2}
        return episode.model_copy(update={**changes, "materialized_at": self.now})

    def _versions(self) -> Iterator[Event]:
        for version in range(1, VERSIONS + 1):
            at = self.at((version - 1) / VERSIONS)
            yield golden(PolicyVersion).model_copy(
                update={
                    "policy": LINE,
                    "version": version,
                    "parent_version": version - 1 or None,
                    "algorithm": "hg-dagger",
                    "learner_step": 1500 + 400 * version,
                    "episodes_admitted": 12 + 36 * version,
                    "config": '{"algorithm": "hg-dagger", "batch_size": 256}',
                    "published_at": at,
                }
            )
            for number, robot in enumerate(ROBOTS):
                yield golden(PolicyActivated).model_copy(
                    update={
                        "robot_id": robot,
                        "policy": LINE,
                        "version": version,
                        "activated_at": at + timedelta(milliseconds=150 + 40 * number),
                    }
                )
            drawn = [e for e in self.episodes if e.started_at < at]
            yield TrainingLineage(
                policy=LINE,
                version=version,
                part=1,
                parts=1,
                reported_at=at,
                episodes=tuple(
                    EpisodeDraws(episode_id=e.episode_id, revision=1, draws=40 + n % 17)
                    for n, e in enumerate(drawn)
                ),
            )

    def _with_payload(self) -> tuple[EpisodeMaterialized, Payload]:
        """The newest episode, of which every step is there: a human acts from step 60 to 99."""
        robot, id_, takeover = Robot("arm-2"), uuid7(), uuid7()
        about = {"task": "fold-towel", "instruction": "Fold the towel.", "features": FEATURES, "fps": 30.0}
        events: list[RobotEvent] = [robot.start(id_, **about, policy=LINE)]
        for index in range(180):
            if index == 60:
                events.append(robot.intervention(id_, takeover, InterventionPhase.BEGIN, 60))
            state, action, human = vectors(index)
            changes: dict[str, Any] = {"state": state, "action": action, "reward": -1.0 if index < 179 else 0.0}
            changes |= {"policy_version": VERSIONS}
            if 60 <= index < 100:
                changes |= {"actor": Actor.HUMAN, "action": human, "proposed_action": action}
            events.append(robot.step(id_, index, **changes))
            if index == 99:
                events.append(
                    robot.intervention(id_, takeover, InterventionPhase.END, 60).model_copy(
                        update={"last_step": 99}
                    )
                )
        events.append(robot.end(id_, 0, 180, intervention_count=1))
        begin = self.now - timedelta(seconds=8)
        events = [
            event.model_copy(update={"captured_at": begin + timedelta(milliseconds=33 * n)})
            for n, event in enumerate(events)
        ]
        log, assembly = Log(), Assembly(EmittedLog(), 10.0)
        arrived = int(self.now.timestamp() * 1000) - 1500
        [only] = assembly.add(decoded([log.append(event, arrived) for event in events])).sealed
        payload = build_payload(only.episode, only.closed_by, 1)
        found = payload.facts.announcement(
            uri=f"s3://{BUCKET}/{payload.key}", sha256=payload.sha256, size=len(payload.data), at=self.now
        )
        return found, payload


def vectors(step: int) -> tuple[bytes, bytes, bytes]:
    """State, action of the policy and action of a human at a step; they look like a motion."""
    places = np.arange(len(NAMES))
    state = np.sin(step / 22 + places) * (0.4 + 0.1 * places)
    action = 0.6 * np.cos(step / 14 + places)
    found = (state, action, action + 0.3 * np.sin(step / 6) + 0.2)
    return tuple(each.astype("<f4").tobytes() for each in found)


FEATURES = tuple(Feature(name=name, shape=(len(NAMES),), names=NAMES) for name in ("state", "action"))


def letters(now: datetime, schema_id: int) -> list[TableRow]:
    """Three dead letters: one that is whole, one that is cut, one that never was a record."""
    whole = frame(schema_id, encode(golden(Step)))
    values = [
        ("conflict", "sequence 17 was sent before with other content", whole),
        ("undecodable", "the record ends too early", whole[: len(whole) // 2]),
        ("undecodable", "first byte is 110, not 0: no schema id", b"no frame at all <script>alert(1)</script>"),
    ]
    return [
        TableRow(
            "raw_dead_letters",
            {
                "topic": "robot-steps",
                "partition": 0,
                "offset": 40 + number,
                "robot_id": "arm-3",
                "reason": reason,
                "error": error,
                "value": value,
                "appended_at": now - timedelta(minutes=number + 1),
            },
        )
        for number, (reason, error, value) in enumerate(values)
    ]
