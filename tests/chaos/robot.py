"""One emulated robot: events with a gapless sequence, as Avro data."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STATE, ACTION = 8, 4
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
        return int(self.datum["sequence"])

    def __repr__(self) -> str:
        return f"Event({self.topic} {self.line} {self.sequence} {self.spoil}{self.fate})"


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

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.chance.getrandbits(63))

    def episode(self, steps: int, *, ends: bool = True) -> list[Event]:
        """All events of an episode in order of their sequence; the boundaries first and last."""
        episode_id = self.line.uuid7()
        start = self.line.event("robot-episodes", episode_id, body=("sop.EpisodeStarted", self._start()))
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
        if ends:
            body = {
                "first_sequence": start.sequence,
                "end": self.chance.choice(["TERMINATED", "TRUNCATED", "ABORTED"]),
                "success": self.chance.choice([True, False, None]),
                "final_state": None,
                "step_count": steps,
                "intervention_count": int(taken_over >= 0),
                "simulated_at": None,
            }
            events.append(self.line.event("robot-episodes", episode_id, body=("sop.EpisodeEnded", body)))
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

    def _start(self) -> dict[str, Any]:
        def feature(name: str, size: int) -> dict[str, Any]:
            return {"name": name, "dtype": "float32", "shape": [size], "names": []}

        return {
            "task": self.task,
            "instruction": "whatever comes",
            "embodiment": "arm",
            "features": [feature("state", STATE), feature("action", ACTION)],
            "fps": 50.0,
            "source": "ONLINE",
            "policy": "",
        }
