"""One emulated robot: events with a gapless sequence, as Avro data."""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STATE, ACTION = 8, 4
CAMERA = "wrist"
LABELS = "episode-labels"
BUCKET = "sop"
FIRST_BOOT = 1_750_000_000_000
BEGIN_US = 1_767_225_600_000_000
"""2026-01-01 UTC, where the emulated robots' clocks begin."""
LISTED, DEAD, EITHER = "listed", "dead", "either"
"""What must become of an event: in its episode, once on dead-letters, or the latter or nothing."""


@dataclass(eq=False, slots=True)
class Event:
    """A record to be sent. Two objects are two events; sending one again repeats it.

    `spoil` names what is done to the bytes; `reasons` are the only ones allowed on dead-letters.
    """

    topic: str
    datum: dict[str, Any]
    key: bytes | None
    line: str
    fate: str = LISTED
    reasons: frozenset[str] = frozenset({"never_started"})
    spoil: str = ""
    counted: bool = True
    """Whether its sequence is the episode's: listed or rejected there."""
    may_repeat: bool = True

    @property
    def episode_id(self) -> str:
        return str(self.datum["episode_id"])

    @property
    def sequence(self) -> int:
        """Its place among its robot's events; a label has none."""
        return int(self.datum.get("sequence", -1))

    def __repr__(self) -> str:
        what = self.datum["label"]["label_id"] if "label" in self.datum else self.sequence
        return f"Event({self.topic} {self.line} {what} {self.spoil}{self.fate})"


class Line:
    """One boot of one robot: its identity, its sequence and its clock."""

    def __init__(self, chance: random.Random, robot_id: str, boot: int) -> None:
        self.chance = chance
        self.robot_id = robot_id
        self.boot_epoch = FIRST_BOOT + boot * 1000
        self.name = f"{robot_id}@{boot}"
        self.sequence = 0
        self._clock_us = BEGIN_US

    def leap(self, seconds: int) -> None:
        self._clock_us += seconds * 1_000_000

    def common(self, episode_id: str) -> dict[str, Any]:
        """Fields that all events share; takes the next sequence."""
        self.sequence += 1
        self._clock_us += 20_000
        return {
            "episode_id": episode_id,
            "robot_id": self.robot_id,
            "boot_epoch": self.boot_epoch,
            "sequence": self.sequence - 1,
            "captured_at": self._clock_us,
        }

    def event(self, topic: str, episode_id: str, **fields: Any) -> Event:
        return Event(topic, {**self.common(episode_id), **fields}, self.robot_id.encode(), self.name)

    def uuid7(self) -> str:
        """A UUIDv7 of the emulated time, from the robot's own randomness."""
        milliseconds = BEGIN_US // 1000 + self.chance.randrange(86_400_000)
        number = milliseconds << 80 | self.chance.getrandbits(80)
        number = number & ~(0xF << 76) | 0x7 << 76
        number = number & ~(0x3 << 62) | 0x2 << 62
        return str(uuid.UUID(int=number))


@dataclass
class Robot:
    """Records episodes on a line."""

    chance: random.Random
    line: Line
    task: str = "chaos"
    numbers: Any = field(init=False)
    objects: dict[str, bytes] = field(default_factory=dict)
    """What its cameras stored, by key; there before the events that refer to it."""

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.chance.getrandbits(63))

    def episode(self, steps: int, *, ends: bool = True) -> list[Event]:
        """All events of an episode in order of their sequence; the boundaries first and last."""
        episode_id = self.line.uuid7()
        sees = bool(steps) and self.chance.random() < 0.25
        body = ("sop.EpisodeStarted", self._start(sees=sees))
        start = self.line.event("robot-episodes", episode_id, body=body)
        events = [start]
        taken_over = self.chance.randrange(steps) if steps and self.chance.random() < 0.3 else -1
        states = self.numbers.standard_normal((steps, STATE)).astype("<f4")
        actions = self.numbers.standard_normal((steps, ACTION)).astype("<f4")
        for index in range(steps):
            human = index == taken_over
            intervention_id = self.line.uuid7() if human else ""
            if human:
                events.append(self._intervention(episode_id, intervention_id, "BEGIN", index))
            events.append(self.step(episode_id, index, states[index], actions[index], human=human))
            if human:
                events.append(self._intervention(episode_id, intervention_id, "END", index))
        footage = self._footage(episode_id, steps) if sees else []
        events += footage
        if ends:
            seen = [segment for event in footage for segment in event.datum["body"][1]["segments"]]
            ending = {
                "first_sequence": start.sequence,
                "end": self.chance.choice(["TERMINATED", "TRUNCATED", "ABORTED"]),
                "success": self.chance.choice([True, False, None]),
                "final_state": None,
                "step_count": steps,
                "intervention_count": int(taken_over >= 0),
                "simulated_at": None,
                "frame_count": sum(p["last"] - p["first"] + 1 for segment in seen for p in segment["steps"]),
                "frames_dropped": 0,
            }
            events.append(self.line.event("robot-episodes", episode_id, body=("sop.EpisodeEnded", ending)))
        return events

    def step(self, episode_id: str, index: int, state: Any, action: Any, *, human: bool = False) -> Event:
        return self.line.event(
            "robot-steps",
            episode_id,
            index=index,
            actor="HUMAN" if human else "POLICY",
            policy_version=self.chance.randrange(3),
            state=state.tobytes(),
            action=action.tobytes(),
            proposed_action=action[::-1].tobytes() if human else None,
            reward=float(np.float32(self.chance.random())),
        )

    def intervention(self, episode_id: str, reason: str) -> Event:
        """The beginning of an intervention at the first step, out of turn: its sequence is given to it later."""
        event = self._intervention(episode_id, self.line.uuid7(), "BEGIN", 0)
        event.datum["reason"] = reason
        return event

    def _intervention(self, episode_id: str, intervention_id: str, phase: str, at: int) -> Event:
        return self.line.event(
            "robot-interventions",
            episode_id,
            intervention_id=intervention_id,
            phase=phase,
            operator="ann",
            reason="slipping",
            first_step=at,
            last_step=at if phase == "END" else None,
        )

    def _footage(self, episode_id: str, steps: int) -> list[Event]:
        """What the camera saw: every second run of some steps, as stills in the event or as objects."""
        length = self.chance.choice([1, 4, 25])
        segments = []
        for first in range(0, steps, 2 * length)[:6]:
            data = self.numbers.bytes(self.chance.randrange(20, 60))
            digest = hashlib.sha256(data).hexdigest()
            segment = {
                "sha256": digest,
                "size_bytes": len(data),
                "codec": "h264",
                "steps": [{"first": first, "last": min(first + length, steps) - 1}],
                "uri": None,
                "data": data,
            }
            if self.chance.random() < 0.2:
                key = f"frames/{episode_id}/{digest}.mp4"
                self.objects[key] = data
                segment |= {"uri": f"s3://{BUCKET}/{key}", "data": None}
            segments.append(segment)
        cut = self.chance.randrange(len(segments) + 1)
        return [
            self.line.event(
                "robot-episodes", episode_id, body=("sop.FramesRecorded", {"camera": CAMERA, "segments": part})
            )
            for part in (segments[:cut], segments[cut:])
            if part
        ]

    def _start(self, *, sees: bool) -> dict[str, Any]:
        def feature(name: str, size: int) -> dict[str, Any]:
            return {"name": name, "dtype": "float32", "shape": [size], "names": []}

        camera = {"name": CAMERA, "dtype": "uint8", "shape": [4, 4, 3], "names": []}
        return {
            "task": self.task,
            "instruction": "whatever comes",
            "embodiment": "arm",
            "features": [feature("state", STATE), feature("action", ACTION), *([camera] if sees else [])],
            "fps": 50.0,
            "source": "ONLINE",
            "policy": "",
        }
