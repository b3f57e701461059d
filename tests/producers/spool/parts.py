"""A robot's end of a spool, a broker that does as it is told, and a publisher between them."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from infra.clock import ManualClock
from infra.kafka import MESSAGE_BYTES, TOO_LARGE, OutRecord
from infra.settings import RobotSettings
from producers.clock_offset import ClockOffset
from producers.episode import Episode
from producers.event_log import EventLog
from producers.frames.recorder import FrameRecorder
from producers.frames.uploads import FrameUploads
from producers.outbox import Item, item
from producers.spool.directory import SpoolDirectory
from producers.spool.publisher import Publisher, Status
from producers.spool.reading import SpoolReading
from producers.spool.segment import Kind
from producers.spool.store import SpoolStore
from producers.tail import Tail
from schemas.codec import decode, event_type, unframe
from schemas.events import (
    Actor,
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    EpisodeSource,
    EpisodeStarted,
    Event,
    Intervention,
    InterventionPhase,
    RobotEvent,
    Step,
)
from schemas.topics import ROBOT_STEPS, TOPICS
from tests.producers.fakes import FEATURES

STATE, ACTION = np.zeros(3, np.float32), np.zeros(2, np.float32)
SMALL = RobotSettings(segment_bytes=2**12, min_free_bytes=0, sync_interval=0.01, drain_rate=1e6)

Report = Callable[[str | None, int], None]


class Objects:
    """No bucket: here nothing has frames."""

    def key(self, uri: str) -> str:
        raise AssertionError(uri)

    def put(self, key: str, data: bytes) -> str:
        raise AssertionError(key)


class StoreOutbox:
    """The spool's store behind the outbox's interface, without a publisher."""

    def __init__(self, store: SpoolStore) -> None:
        self.store = store

    def reserve(self, steps: int, step_bytes: int, frame_bytes: int = 0) -> int:
        return self.store.room.reserve(steps, step_bytes)

    def append(self, entry: Item) -> None:
        self.store.append(entry)

    def settle(self) -> Tail:
        return self.store.settle()

    def offer(self, entry: Item) -> None:
        raise AssertionError("nothing is offered here")

    def depth(self) -> int:
        return self.store.last - self.store.directory.acknowledged()

    def age_seconds(self) -> float:
        return 0.0

    def used_bytes(self) -> int:
        return self.store.directory.used_bytes()

    def clock_offset(self) -> ClockOffset | None:
        return None

    def errors(self) -> tuple[str, ...]:
        return ()

    def drain(self, timeout: float) -> None:
        raise AssertionError("nothing is published here")

    def close(self, timeout: float) -> None:
        self.store.close()


@dataclass
class Robot:
    """One boot of a robot, with as much of its client as writes events."""

    store: SpoolStore
    log: EventLog
    recorder: FrameRecorder
    episode: Episode | None = None

    @classmethod
    def boot(cls, path: Path, epoch: int, clock: ManualClock, settings: RobotSettings = SMALL) -> Robot:
        store = SpoolStore(SpoolDirectory(path), settings, "robot-1", epoch)
        recorder = FrameRecorder(store.directory.frames, settings, "robot-1", "sop")
        return cls(store, EventLog("robot-1", epoch, StoreOutbox(store), clock), recorder)

    def begin(self) -> Episode:
        start = EpisodeStarted(
            task="push",
            instruction="Push.",
            embodiment="",
            features=FEATURES,
            fps=10.0,
            source=EpisodeSource.ONLINE,
        )
        self.episode = Episode(self.log, start, 0, lambda _episode: None, self.recorder)
        self.log.unsure = False
        return self.episode

    def steps(self, count: int) -> None:
        assert self.episode is not None
        for _ in range(count):
            self.episode.step(state=STATE, action=ACTION)

    def killed(self, into: Path) -> Path:
        """The files as kill -9 leaves them, elsewhere; this boot is not used any more."""
        while self.store._old or self.store._next is None:
            time.sleep(0.001)  # a copy takes its time, a kill does not: nothing may move meanwhile
        shutil.copytree(self.store.directory.path, into)
        self.store.close()
        return into


class NoPublisher:
    """Beside a spool of which nobody hears."""

    def __init__(self, *_: object) -> None:
        self.offered: list[Item] = []

    def status(self) -> Status:
        return Status(0)

    def errors(self) -> tuple[str, ...]:
        return ()

    def offer(self, entry: Item) -> None:
        self.offered.append(entry)

    def stop(self) -> None:
        """Nothing to stop."""


def check_episodes(events: list[RobotEvent], aborted: set[str] | None = None) -> None:
    """Each episode begins, ends and counts as it should; `aborted` are those that were broken off, where known."""
    by_episode: dict[str, list[RobotEvent]] = {}
    for event in sorted(events, key=lambda event: (event.boot_epoch, event.sequence)):
        by_episode.setdefault(event.episode_id, []).append(event)
    for episode_id, mine in by_episode.items():
        first, last = mine[0], mine[-1]
        assert isinstance(first, EpisodeBoundary)
        assert isinstance(first.body, EpisodeStarted)
        assert isinstance(last, EpisodeBoundary)
        assert isinstance(last.body, EpisodeEnded)
        assert sum(isinstance(e, EpisodeBoundary) for e in mine) == 2
        steps = [e for e in mine if isinstance(e, Step)]
        edges = [e for e in mine if isinstance(e, Intervention)]
        begun = [e for e in edges if e.phase is InterventionPhase.BEGIN]
        over = [e for e in edges if e.phase is InterventionPhase.END]
        assert last.body.first_sequence == first.sequence
        assert last.body.step_count == len(steps)
        assert [step.index for step in steps] == list(range(len(steps)))
        assert last.body.intervention_count == len(begun)
        assert [e.intervention_id for e in begun] == [e.intervention_id for e in over]
        if aborted is not None:
            assert (last.body.end is EpisodeEnd.ABORTED) == (episode_id in aborted)


def older_client_s(store: SpoolStore, state: bytes) -> None:
    """A step of any size, as clients before this one recorded it."""
    event = Step(
        episode_id="0" * 36,
        robot_id="robot-1",
        boot_epoch=1,
        sequence=0,
        captured_at=ManualClock().now(),
        index=0,
        actor=Actor.POLICY,
        policy_version=0,
        state=state,
        action=b"",
        reward=0.0,
    )
    store.append(item(ROBOT_STEPS, "robot-1", event, b"00-trace", 1.0))


class Ids:
    """Every schema is 7, once it is known."""

    def __init__(self, known: bool = True) -> None:
        self.known = known

    def find(self, kind: Kind) -> int | None:
        return 7 if self.known else None

    def error(self) -> str | None:
        return None if self.known else "the schema registry: away"


@dataclass
class Broker:
    """Appends what reaches it, by topic; each connection delivers in order, when told to."""

    log: list[OutRecord] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    def connect(self) -> Connection:
        self.connections.append(Connection(self))
        return self.connections[-1]

    def events(self) -> list[Event]:
        found = []
        for record in self.log:
            schema_id, body = unframe(record.value)
            assert schema_id == 7
            found.append(decode(event_type(str(TOPICS[record.topic].event)), body))
        return found


@dataclass
class Connection:
    """Implements `publisher.Connection`; nothing is delivered before `deliver`."""

    broker: Broker
    room: int = 1_000
    trouble: str | None = None
    sampled: int = 0
    waiting: deque[tuple[OutRecord, Report | None]] = field(default_factory=deque)
    reports: deque[tuple[Report | None, str | None]] = field(default_factory=deque)

    def send(
        self,
        record: OutRecord,
        on_delivery: Report | None = None,
        on_appended: Callable[[float], None] | None = None,
    ) -> bool:
        if len(self.waiting) >= self.room:
            return False
        if len(record.value or b"") > MESSAGE_BYTES and on_delivery is not None:
            on_delivery(TOO_LARGE, -1)
            return True
        self.waiting.append((record, on_delivery))
        self.sampled += on_appended is not None
        return True

    def deliver(self, count: int, topic: str | None = None, *, report: bool = True) -> None:
        """The broker appends the first so many (of a topic); without `report` nobody hears of it."""
        kept: deque[tuple[OutRecord, Report | None]] = deque()
        while self.waiting:
            record, on_delivery = self.waiting.popleft()
            if count > 0 and topic in (None, record.topic):
                count -= 1
                self.broker.log.append(record)
                if report:
                    self.reports.append((on_delivery, None))
            else:
                kept.append((record, on_delivery))
        self.waiting = kept

    def refuse(self, error: str = "not authorized") -> None:
        """Everything that waits fails."""
        while self.waiting:
            self.reports.append((self.waiting.popleft()[1], error))

    def poll(self, timeout: float = 0.0) -> None:
        while self.reports:
            on_delivery, error = self.reports.popleft()
            if on_delivery is not None:
                on_delivery(error, 0)

    def discard(self) -> None:
        self.waiting.clear()

    def flush(self, timeout: float) -> int:
        self.poll()
        return len(self.waiting)


def publisher(
    path: Path, broker: Broker, clock: ManualClock, ids: Ids | None = None, rate: float = 1e6
) -> Publisher:
    directory = SpoolDirectory(path)
    return Publisher(
        SpoolReading(directory),
        broker.connect,
        ids or Ids(),
        clock,
        sync_interval=0.01,
        drain_rate=rate,
        frames=FrameUploads(directory.frames, Objects, clock),
    )


def turns(publisher: Publisher, clock: ManualClock, count: int = 1) -> None:
    for _ in range(count):
        clock.advance(1.0)
        publisher.turn()


def drain(publisher: Publisher, broker: Broker, clock: ManualClock) -> None:
    """Until nothing moves any more."""
    still = 0
    while still < 5:
        before = len(broker.log)
        turns(publisher, clock)
        broker.connections[-1].deliver(10**6)
        still = still + 1 if len(broker.log) == before else 0
        clock.advance(30.0)  # whatever pause after a refusal
