"""A member of the group without its servers: the pure parts of the materializer, over logs that are lists.

Kafka's promises are taken as given here (what is in a transaction becomes visible at once, with its offsets); the
real servers are asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar, cast

from consumers.assembly import Sealed
from consumers.dead_letters import Reason
from consumers.emitted import EmittedLog
from consumers.history import Graveyard
from consumers.partition import OwnedPartition, resume_positions
from consumers.storekeeper import Storekeeper
from consumers.storing import CannotStore, Stored, store_wave
from consumers.tombstone import Place
from infra.clock import Clock, ManualClock
from infra.errors import InfraError, ObjectMissing, ObjectStoreUnavailable
from infra.kafka import CommittedOffset, Partition
from infra.object_store import ObjectStore
from schemas.events import EpisodeMaterialized
from schemas.topics import EPISODE_TOPICS, ROBOT_TOPICS
from tests.consumers.robots import Log, decoded

TIMEOUT = 600.0
T = TypeVar("T")


class Inline(Executor):
    """Does what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done


class Unasked:
    """Dead-letters where no objects contradict one another."""

    def holds(self, places: Collection[Place], since_ms: int, _beat: object = None) -> set[Place]:
        raise AssertionError(f"nobody should ask for {places} since {since_ms}")


def store(
    sealed: Sealed,
    emitted: EmittedLog,
    committed: Mapping[str, int],
    objects: ObjectStore,
    clock: Clock,
    *,
    graveyard: Graveyard | None = None,
) -> Stored:
    """Store one episode, as the materializer stores a wave of one."""
    (result,) = store_wave(
        [sealed], emitted, committed, objects, clock, graveyard=graveyard or Unasked(), pool=Inline()
    )
    if isinstance(result, InfraError | CannotStore):
        raise result
    return result


class Shelf:
    """Objects in memory, with the store's interface as far as the materializer uses it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fails_in: int | None = None
        """So many calls from now one fails."""

    def _called(self, key: str) -> None:
        if self.fails_in is not None:
            self.fails_in -= 1
            if self.fails_in <= 0:
                self.fails_in = None
                raise ObjectStoreUnavailable("no answer")

    def put(self, key: str, data: bytes) -> str:
        self._called(key)
        assert self.objects.get(key, data) == data, "one key, two contents"
        self.objects[key] = data
        return f"s3://sop/{key}"

    def get(self, key: str) -> bytes:
        self._called(key)
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    def key(self, uri: str) -> str:
        return uri.removeprefix("s3://sop/")

    def list(self, prefix: str) -> list[str]:
        self._called(prefix)
        return sorted(key for key in self.objects if key.startswith(prefix))


@dataclass
class Cluster:
    """What outlives a member: the logs, the objects, and the group's committed offsets."""

    log: Log = field(default_factory=Log)
    shelf: Shelf = field(default_factory=Shelf)
    training: list[EpisodeMaterialized] = field(default_factory=list)
    dead: list[tuple[str, int]] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    """Of `dead`, one by one."""
    committed: dict[Partition, CommittedOffset] = field(
        default_factory=lambda: {(topic, 0): CommittedOffset(0) for topic in EPISODE_TOPICS}
    )
    clock: ManualClock = field(default_factory=ManualClock)

    def now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def holds(self, places: Collection[Place], since_ms: int, _beat: object = None) -> set[Place]:
        """Those records that are on dead-letters; they came there after `since_ms`."""
        assert since_ms <= self.now_ms()
        return {place for place in places if (place[0], place[2]) in self.dead}


class Member:
    """Owns the one partition number. `stale` members are refused by the commit, as the group's fence does."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.read = 0
        starts = [resume_positions(value.metadata) for value in cluster.committed.values()]
        emitted = EmittedLog()
        offsets = {topic: value.offset for (topic, _), value in cluster.committed.items()}
        for position in range(min(training for training, _ in starts), len(cluster.training)):
            emitted.recall(cluster.training[position], position, offsets)
        for position in range(min(dead for _, dead in starts), len(cluster.dead)):
            given_up = cluster.reasons[position] is Reason.NEVER_STARTED
            emitted.recall_dead(*cluster.dead[position], position, offsets, given_up=given_up)
        emitted.end_of_training, emitted.end_of_dead_letters = len(cluster.training), len(cluster.dead)
        self.owned = OwnedPartition(0, {}, offsets, emitted, TIMEOUT)
        self.keeper = Storekeeper(cast("ObjectStore", cluster.shelf), cluster, cluster.clock, Inline())

    def consume(self, topic: str, count: int) -> None:
        """Read on in one topic, at most `count` records."""
        at = self.owned.positions[topic]
        places = self.cluster.log.records[topic][at : at + count]
        if places:
            self.owned.add(decoded(places), self.now_ms())

    def let_time_pass(self) -> None:
        """Notice what fell silent."""
        log = self.cluster.log.records
        idle = frozenset(t for t in ROBOT_TOPICS if self.owned.positions[t] >= len(log[t]))
        self.owned.advance(self.now_ms(), idle)

    def now_ms(self) -> int:
        """By its own clock, which is nobody else's."""
        return int(self.cluster.clock.monotonic() * 1000)

    def decide(self) -> None:
        """Look up what was announced of episodes that hold dead letters back."""
        self.keeper.decide(self.owned, inf, lambda _: None)

    def apply_labels(self) -> None:
        """Hand labels to episodes that are stored."""
        self.keeper.apply_labels(self.owned, inf)

    def store(self) -> None:
        """Put sealed episodes on the shelf."""
        self.keeper.store(self.owned, inf)

    def refused(self) -> None:
        """Store, and be refused by the commit: nothing of it is visible, and all of it waits."""
        self.store()
        self.owned.offsets()

    def commit(self) -> None:
        """Store, then make everything visible at once."""
        self.store()
        offsets, outbox, cluster = self.owned.offsets(), self.owned.outbox, self.cluster
        for event in outbox.announcements:
            self.owned.emitted.remember(event, len(cluster.training))
            cluster.training.append(event)
        for letter in outbox.dead:
            place = (letter.origin.topic, letter.origin.offset)
            self.owned.emitted.remember_dead(*place, len(cluster.dead))
            cluster.dead.append(place)
            cluster.reasons.append(letter.reason)
        cluster.committed = offsets
        self.owned.committed_now(offsets)
