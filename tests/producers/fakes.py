"""An outbox that keeps what it takes, and a feed of policies that a test writes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from infra.clock import ManualClock
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.policies.announced import Announced, key_of
from infra.policies.keys import SigningKey
from infra.policies.rollout import Change, Transition
from infra.settings import PolicySettings, Settings
from producers.clock_offset import ClockOffset
from producers.errors import SpoolFull
from producers.outbox import Item
from producers.policy_feed import Heard
from producers.robot import RobotClient
from producers.tail import Tail
from schemas.codec import decode, encode, event_type, latest
from schemas.events import Event, Feature, PolicyRollout, PolicyVersion, RobotEvent, SignedEvent
from schemas.topics import ROBOT_STEPS, ROBOT_TOPICS

LEARNER, OPERATOR = SigningKey.generate(), SigningKey.generate()
BELIEVING = PolicySettings(learner_keys=(LEARNER.public,), operator_keys=(OPERATOR.public,), min_free_bytes=0)
"""Settings of robots that believe what `sent` signs."""

# Where no disk is on trial, and many files are synced.
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108

S = TypeVar("S", bound=SignedEvent)

FEATURES = (Feature(name="state", shape=(3,)), Feature(name="action", shape=(2,)))


class MemoryOutbox:
    """Takes steps while it holds less than `capacity` events, and all else always."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self.capacity = capacity
        self.items: list[Item] = []
        self.offered: list[Item] = []
        self.drained_for: float | None = None
        self.closed_with: float | None = None

    def reserve(self, steps: int, step_bytes: int, frame_bytes: int = 0) -> int:
        assert step_bytes > 0
        if len(self.items) + steps > self.capacity:
            raise SpoolFull("full")
        return 10**9

    def append(self, entry: Item) -> None:
        if len(self.items) >= self.capacity and entry.topic == ROBOT_STEPS:
            raise SpoolFull("full")
        self.items.append(entry)

    def settle(self) -> Tail:
        tail = Tail()
        for entry in self.items:
            tail.note(as_event(entry), entry.traceparent)
        return tail

    def offer(self, entry: Item) -> None:
        self.offered.append(entry)

    def depth(self) -> int:
        return len(self.items)

    def age_seconds(self) -> float:
        return 0.0

    def used_bytes(self) -> int:
        return sum(len(entry.body) for entry in self.items)

    def clock_offset(self) -> ClockOffset | None:
        return None

    def errors(self) -> tuple[str, ...]:
        return ()

    def drain(self, timeout: float) -> None:
        self.drained_for = timeout

    def close(self, timeout: float) -> None:
        self.closed_with = timeout

    def events(self) -> list[Event]:
        return [as_event(entry) for entry in self.items]

    def robot_events(self) -> list[RobotEvent]:
        return [event for event in self.events() if isinstance(event, RobotEvent)]

    def topics(self) -> list[str]:
        return [entry.topic for entry in self.items if entry.topic in ROBOT_TOPICS]


def as_event(entry: Item) -> Event:
    return decode(event_type(entry.schema.record), entry.body)


@contextmanager
def robot(
    data_dir: Path, outbox: MemoryOutbox | None = None, clock: ManualClock | None = None, robot_id: str = "robot-1"
) -> Iterator[tuple[RobotClient, MemoryOutbox]]:
    box = outbox or MemoryOutbox()
    with RobotClient(
        Settings(policies=BELIEVING),
        robot_id,
        data_dir,
        clock=clock or ManualClock(),
        outbox=box,
        heartbeat_interval=None,
    ) as client:
        yield client, box


def started(client: RobotClient, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "task": "push",
        "instruction": "Push.",
        "features": FEATURES,
        "fps": 10.0,
        "max_steps": 100,
    }
    return client.episode(**{**given, **changes})


def announcement(version: int, data: bytes, **changes: Any) -> PolicyVersion:
    given: dict[str, Any] = {
        "policy": "line",
        "version": version,
        "artifact_uri": f"s3://sop/policies/{version}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "algorithm": "hg-dagger",
        "learner_step": version,
        "episodes_admitted": 0,
        "offsets": (),
        "config": "{}",
        "code_version": "0",
        "published_at": ManualClock().now(),
        "simulated_seconds": 60.0 * version,
    }
    return PolicyVersion(**{**given, **changes})


def at_least(version: int) -> Callable[[PolicyVersion], bool]:
    return lambda announced: announced.version >= version


def sent(event: S, *, key: str | None = None, by: SigningKey | None = None) -> Announced[S]:
    """An announcement as it arrives, signed by whom robots of these tests believe."""
    signer = by or (LEARNER if isinstance(event, PolicyVersion) else OPERATOR)
    signed = event if event.signature is not None else signer.sign(event)
    return as_sent(signed, key)


def as_sent(event: S, key: str | None = None) -> Announced[S]:
    """An announcement as it arrives, signed or not."""
    return Announced(key_of(event) if key is None else key, event, encode(event), latest(event.record))


def rolled_out(*transitions: Transition) -> PolicyRollout:
    """The state after these changes, not signed."""
    state: PolicyRollout | None = None
    for transition in transitions:
        state = transition(state, Change("ada", "because", ManualClock().now()))
    assert state is not None
    return state


class ScriptedFeed:
    """Announcements that a test pushes, artifacts by address.

    `failures` says how often a read fails first; `breaks_after` how many bytes come before every read fails.
    """

    def __init__(self) -> None:
        self.artifacts: dict[str, bytes] = {}
        self.downloads: list[int] = []
        self.reads: list[tuple[int, int]] = []
        self.failures = 0
        self.breaks_after: int | None = None
        self.closed = False
        self.everything_heard = True
        self.polls = 0
        self._offset = 0
        self._pending: list[Heard] = []
        self._came = threading.Condition()

    def push(self, *announcements: Announced[Any] | PolicyVersion | PolicyRollout | Heard) -> None:
        with self._came:
            for given in announcements:
                if isinstance(given, PolicyVersion | PolicyRollout):
                    given = sent(given)  # noqa: PLW2901
                heard = given if isinstance(given, Heard) else Heard(given.key, self._offset, given)
                self._offset += 1
                self._pending.append(heard)
            self._came.notify_all()

    def publish(self, version: int, data: bytes, **changes: Any) -> PolicyVersion:
        event: PolicyVersion = sent(announcement(version, data, **changes)).event
        self.artifacts[event.artifact_uri] = data
        self.push(event)
        return event

    def poll(self, timeout: float) -> list[Heard]:
        with self._came:
            self.polls += 1
            self._came.wait_for(lambda: bool(self._pending), timeout)
            taken, self._pending = self._pending, []
            return taken

    def heard_all(self) -> bool:
        return self.everything_heard

    def size(self, announcement: PolicyVersion) -> int:
        if self.failures:
            self.failures -= 1
            raise ObjectStoreUnavailable("down")
        if announcement.artifact_uri not in self.artifacts:
            raise ObjectMissing("none")
        self.downloads.append(announcement.version)
        return len(self.artifacts[announcement.artifact_uri])

    def read(self, announcement: PolicyVersion, start: int, length: int) -> memoryview:
        if self.breaks_after is not None and start >= self.breaks_after:
            raise ObjectStoreUnavailable("hung up")
        self.reads.append((start, length))
        return memoryview(self.artifacts[announcement.artifact_uri])[start : start + length]

    def close(self) -> None:
        self.closed = True
