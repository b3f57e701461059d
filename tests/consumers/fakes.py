"""Servers in memory around the real materializer, with faults as data; two partition numbers, one member.

What a server promises is taken as given, here as in `member.py`: the real ones are asked in the integration tests.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from prometheus_client import REGISTRY

from consumers.materializer import Materializer
from consumers.records import Origin
from consumers.servers import Servers
from infra.clock import Clock, ManualClock
from infra.errors import KafkaUnavailable, ObjectStoreUnavailable, OffsetsExpired
from infra.health import Health
from infra.kafka import CommittedOffset, OutRecord, Partition
from infra.settings import MaterializerSettings, Settings
from schemas import codec
from schemas.codec import AvroSchema
from schemas.events import EpisodeLabelled, EpisodeMaterialized, RobotEvent
from schemas.topics import DEAD_LETTERS, EPISODE_TOPICS, TRAINING_EPISODES
from tests.consumers.member import Shelf, Unasked
from tests.consumers.robots import SCHEMA_IDS, TOPIC_OF, Consumed, frame, schema_of

NUMBERS = (0, 1)
ANNOUNCED_ID = 5


class Written:
    """A record of training-episodes or dead-letters, with the methods of Kafka's client."""

    def __init__(self, record: OutRecord, offset: int) -> None:
        self.record, self._offset = record, offset

    def topic(self) -> str:
        return self.record.topic

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes | None:
        return self.record.value

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self.record.headers)


@dataclass
class Brokers:
    """Logs, and what is committed.

    `refuse` says why a transaction is not committed, `unclear` why nobody knows whether it is.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    logs: dict[Partition, list[Origin]] = field(default_factory=lambda: defaultdict(list))
    written: dict[Partition, list[Written]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[Partition, CommittedOffset] = field(
        default_factory=lambda: {(topic, n): CommittedOffset(0) for topic in EPISODE_TOPICS for n in NUMBERS}
    )
    refuse: Callable[[Sequence[OutRecord]], Exception | None] = lambda _: None
    unclear: Callable[[Sequence[OutRecord]], Exception | None] = lambda _: None
    transactions: list[int] = field(default_factory=list)
    """Records of each that was tried."""

    def send(self, events: Sequence[RobotEvent | EpisodeLabelled], number: int) -> None:
        now_ms = int(self.clock.now().timestamp() * 1000)
        for event in events:
            topic = TOPIC_OF[type(event)]
            at = len(self.logs[topic, number])
            self.logs[topic, number].append(
                Origin(topic, number, at, now_ms, event.robot_id.encode(), frame(event))
            )

    def announced(self, number: int) -> list[tuple[str, int]]:
        """Episode and revision of each announcement, in order."""
        return [(event.episode_id, event.revision) for event in self.announcements(number)]

    def announcements(self, number: int) -> list[EpisodeMaterialized]:
        values = [one.value() or b"" for one in self.written[TRAINING_EPISODES, number]]
        schema = codec.latest("episode_materialized")
        return [codec.decode(EpisodeMaterialized, value[codec.FRAME_BYTES :], schema) for value in values]

    def buried(self, number: int) -> list[tuple[str, str]]:
        """Topic and offset of each dead letter."""
        found = [dict(one.headers()) for one in self.written[DEAD_LETTERS, number]]
        return [(one["topic"].decode(), one["offset"].decode()) for one in found]


class Group:
    """The member's consumer."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers
        self.assigned: set[Partition] = set()
        self.epochs: Counter[Partition] = Counter()
        self.positions: dict[Partition, int] = {}
        self.paused: set[Partition] = set()
        self.polls: list[float] = []
        """When the group was served, by the clock."""
        self.expired = False
        self.untold: set[int] = set()
        """Partition numbers that nobody tells the committed offsets of."""
        self.stopped: set[int] = set()
        """Partition numbers whose place cannot be set."""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while the group is served."""
        self.assign(NUMBERS)

    def assign(self, numbers: Sequence[int]) -> None:
        """These are the member's now; as Kafka does, others are forgotten, and new ones are not paused."""
        wanted = {(topic, number) for topic in EPISODE_TOPICS for number in numbers}
        for partition in wanted - self.assigned:
            self.epochs[partition] += 1
            self.positions[partition] = self.brokers.committed[partition].offset
        self.paused &= wanted & self.assigned
        self.assigned = wanted

    def consume(self, count: int, timeout: float) -> list[Consumed]:
        self.polls.append(self.brokers.clock.monotonic())
        self.meanwhile()
        if self.expired:
            raise OffsetsExpired("gone")
        found: list[Consumed] = []
        for partition in sorted(self.assigned - self.paused):
            at = self.positions[partition]
            places = self.brokers.logs[partition][at : at + count - len(found)]
            found += [Consumed(place) for place in places]
            self.positions[partition] += len(places)
        if len(found) < count:
            self.brokers.clock.advance(timeout)
        return found

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, CommittedOffset]:
        if self.untold & {number for _, number in partitions}:
            raise KafkaUnavailable("the coordinator moves")
        return {partition: self.brokers.committed[partition] for partition in partitions}

    def seek(self, partition: Partition, offset: int) -> None:
        if partition[1] in self.stopped:
            raise KafkaUnavailable("erroneous state")
        self.positions[partition] = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        self.paused |= set(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self.paused -= set(partitions)

    def end_offset(self, partition: Partition) -> int:
        return len(self.brokers.logs[partition])

    def lags(self) -> dict[Partition, int]:
        """Nothing is fetched of what is paused: its end is as it was."""
        return {p: self.end_offset(p) - self.positions[p] for p in self.assigned - self.paused}

    def group_metadata(self) -> None:
        return None

    def close(self) -> None:
        self.assigned = set()


class Reader:
    """Reads what was written. `seconds` is what each record takes."""

    def __init__(self, brokers: Brokers, seconds: float = 0.0) -> None:
        self.brokers, self.seconds = brokers, seconds

    def bounds(self, partition: Partition) -> tuple[int, int]:
        return 0, len(self._log(partition))

    def _log(self, partition: Partition) -> Sequence[Any]:
        if partition[0] in EPISODE_TOPICS:
            return [Consumed(place) for place in self.brokers.logs[partition]]
        return self.brokers.written[partition]

    def read_to_end(self, starts: Mapping[Partition, int], silence: float, batch: int = 0) -> Iterator[Any]:
        for partition, start in starts.items():
            for record in self._log(partition)[start:]:
                self.brokers.clock.advance(self.seconds)
                yield record

    def close(self) -> None:
        pass


class Producer:
    """One transaction at a time, which is visible at once or not at all."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers = brokers

    def commit(
        self, records: Sequence[OutRecord], offsets: Mapping[Partition, CommittedOffset], group: object
    ) -> list[int]:
        self.brokers.transactions.append(len(records))
        if (error := self.brokers.refuse(records)) is not None:
            raise error
        positions = []
        for record in records:
            log = self.brokers.written[record.topic, record.partition]
            positions.append(len(log))
            log.append(Written(record, len(log)))
        self.brokers.committed |= offsets
        if (error := self.brokers.unclear(records)) is not None:
            raise error
        return positions


class Schemas:
    """The registry."""

    def schema_of(self, schema_id: int, record: str) -> AvroSchema:
        return codec.latest(record) if schema_id == ANNOUNCED_ID else schema_of(schema_id, record)

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        return SCHEMA_IDS.get(schema.record, ANNOUNCED_ID)


class SlowShelf(Shelf):
    """Objects in memory. Calls take `seconds`, and what `refused` occurs in is refused."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock, self.seconds, self.refused = clock, 0.0, "nothing"
        self.calls = 0
        self._guard = threading.Lock()

    def _called(self, key: str) -> None:
        with self._guard:
            self.calls += 1
            self.clock.advance(self.seconds)
        super()._called(key)
        if self.refused in key:
            raise ObjectStoreUnavailable(f"{key} is refused")


@dataclass
class Rig:
    """A materializer among its servers."""

    materializer: Materializer
    brokers: Brokers
    group: Group
    shelf: SlowShelf
    reader: Reader
    health: Health

    def turns(self, count: int = 20) -> None:
        for _ in range(count):
            self.materializer.turn()

    def ready(self) -> tuple[bool, str]:
        return self.health.readiness()

    def paused_numbers(self) -> set[int]:
        return {number for _, number in self.group.paused}


def rig(folder: Path, brokers: Brokers | None = None, clock: Clock | None = None, **changes: Any) -> Rig:
    """A materializer, by default with the brokers' clock; `changes` to its settings."""
    brokers = brokers or Brokers()
    group, reader = Group(brokers), Reader(brokers)
    shelf, health = SlowShelf(brokers.clock), Health(brokers.clock)
    own = MaterializerSettings(spill_dir=folder, **changes)
    settings = Settings().model_copy(update={"materializer": own})
    servers = Servers(
        cast("Any", Schemas()),
        cast("Any", shelf),
        cast("Any", reader),
        Unasked(),
        cast("Any", group),
        lambda: cast("Any", Producer(brokers)),
    )
    return Rig(
        Materializer(settings, clock or brokers.clock, health, servers), brokers, group, shelf, reader, health
    )


def restarted(old: Rig, folder: Path, **changes: Any) -> Rig:
    """Another member, after the first was killed; the objects stay."""
    new = rig(folder, old.brokers, **changes)
    new.shelf.objects = old.shelf.objects
    return new


def sample(name: str, **labels: str) -> float | None:
    """What a metric says now."""
    return REGISTRY.get_sample_value(name, labels)
