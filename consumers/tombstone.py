"""Tombstones: what of an episode was given up before its start came, kept beside its payloads.

Events whose start does not come in time become dead letters, and nothing on the training stream tells of them. A
robot may send them again, with the start, long after that is forgotten in memory. So before they are buried, a
small object in the episode's folder says which they are and where they lie. Like a payload it proves nothing by
itself: it counts for events before the committed offsets, because of those it was decided what becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, ValidationError

from consumers.episode import OpenEpisode
from consumers.payload import folder
from consumers.ranges import RangeSet
from consumers.records import Origin
from infra.object_store import sha256_hex
from schemas.events import OffsetRange

Place = tuple[str, int, int]
"""Topic, partition number and offset of a record."""

_PREFIX = "buried-"


class TombstoneUnreadable(Exception):
    """The bytes are no tombstone of ours."""


class Run(BaseModel):
    """Records that follow one another in a partition, whose sequences follow one another too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    partition: int
    offset: int
    sequence: int
    count: int


class Tombstone(BaseModel):
    """Events of one episode that are given up; `appended_ms` is when Kafka got the first of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode_id: str
    robot_id: str
    boot_epoch: int
    appended_ms: int
    runs: tuple[Run, ...]

    @property
    def key(self) -> str:
        """Where it is stored: whoever gives up the same events writes the same object."""
        return f"{folder(self.episode_id)}{_PREFIX}{sha256_hex(self.data)}.json"

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return self.model_dump_json().encode()

    @property
    def sequences(self) -> RangeSet:
        """Sequences that it names."""
        return RangeSet((run.sequence, run.sequence + run.count - 1) for run in self.runs)

    def source_offsets(self) -> tuple[OffsetRange, ...]:
        """Where its events lie, by topic."""
        spans: dict[tuple[str, int], tuple[int, int]] = {}
        for run in self.runs:
            first, last = spans.get((run.topic, run.partition), (run.offset, run.offset))
            spans[run.topic, run.partition] = min(first, run.offset), max(last, run.offset + run.count - 1)
        return tuple(
            OffsetRange(topic=topic, partition=partition, first=first, last=last)
            for (topic, partition), (first, last) in spans.items()
        )

    def events(self) -> Iterator[tuple[int, Place]]:
        """Sequence and place of each event."""
        for run in self.runs:
            for at in range(run.count):
                yield run.sequence + at, (run.topic, run.partition, run.offset + at)

    def settled(self, committed: Mapping[str, int]) -> Iterator[tuple[int, Place]]:
        """Events that lie before the committed offsets (by topic): it was decided what becomes of them."""
        return ((sequence, place) for sequence, place in self.events() if place[2] < committed.get(place[0], 0))


def tombstone_of(episode: OpenEpisode, buried: Mapping[int, Origin]) -> Tombstone:
    """The tombstone of an episode of which these records, by sequence, are given up."""
    events = sorted(((o.topic, o.partition, o.offset), sequence) for sequence, o in buried.items())
    begins = [0, *(at for at, (one, other) in enumerate(pairwise(events), 1) if not _follows(one, other))]
    runs = [
        Run(topic=place[0], partition=place[1], offset=place[2], sequence=sequence, count=end - begin)
        for begin, end in pairwise([*begins, len(events)])
        for place, sequence in [events[begin]]
    ]
    return Tombstone(
        episode_id=episode.episode_id,
        robot_id=episode.robot_id,
        boot_epoch=episode.boot_epoch,
        appended_ms=min(origin.appended_ms for origin in buried.values()),
        runs=tuple(runs),
    )


def is_tombstone(key: str) -> bool:
    """Whether an object's key is a tombstone's."""
    parts = key.split("/")
    if len(parts) != 3 or folder(parts[1]) != f"{parts[0]}/{parts[1]}/":
        return False
    name = parts[2].removeprefix(_PREFIX).removesuffix(".json")
    return parts[2] == f"{_PREFIX}{name}.json" and len(name) == 64


def read_tombstone(key: str, data: bytes) -> Tombstone:
    """A tombstone read back.

    Raises:
        TombstoneUnreadable: the bytes are no tombstone, or not the one that the key names.
    """
    try:
        found = Tombstone.model_validate_json(data)
    except ValidationError as error:
        raise TombstoneUnreadable(f"not a tombstone: {error!r}") from error
    if found.key != key:
        raise TombstoneUnreadable(f"its bytes are those of {found.key}")
    return found


def _follows(one: tuple[Place, int], other: tuple[Place, int]) -> bool:
    (topic, partition, offset), sequence = one
    return other == ((topic, partition, offset + 1), sequence + 1)
