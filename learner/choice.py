"""What a backfill can be asked for, and what is found of it before a payload is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from learner.stream import Received
from schemas.events import EpisodeMaterialized, EpisodeSource

_OFFSET = re.compile(r"(\d*)@(\d+)")


@dataclass(frozen=True, slots=True)
class Offsets:
    """A place in training-episodes: an offset for each partition that is named, and `every` for the others."""

    by_partition: Mapping[int, int] = field(default_factory=dict)
    every: int | None = None

    @classmethod
    def parse(cls, text: str) -> Offsets | None:
        """`2@1200,5@80`: partition 2 at offset 1200 and 5 at 80. `@1200`: all at 1200. None: no such text.

        Raises:
            ValueError: a partition is named twice.
        """
        parts = [_OFFSET.fullmatch(part.strip()) for part in text.split(",")]
        found = [(part[1], int(part[2])) for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        if len({partition for partition, _ in found}) < len(found):
            raise ValueError(f"{text!r} names a partition twice")
        every = dict(found).get("")
        return cls({int(partition): offset for partition, offset in found if partition}, every)

    def of(self, partition: int) -> int | None:
        """The offset in a partition; None where nothing is said of it."""
        return self.by_partition.get(partition, self.every)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which episodes: `where` is SQL over `episodes`, run as the user who may only read.

    since, until: times of arrival; first, past: offsets of the announcements. Both ranges begin with their first
    and end before their last; where nothing is said, there is no bound.
    """

    where: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    first: Offsets = Offsets()
    past: Offsets = Offsets()

    def takes(self, at: datetime, partition: int, offset: int) -> bool:
        """Whether an episode is chosen that arrived at `at` and was announced there."""
        if (self.since is not None and at < self.since) or (self.until is not None and at >= self.until):
            return False
        first, past = self.first.of(partition), self.past.of(partition)
        return (first is None or offset >= first) and (past is None or offset < past)


@dataclass(frozen=True, slots=True)
class Row:
    """What ClickHouse knows of an episode, and where its announcement lay."""

    episode_id: str
    revision: int
    payload_uri: str
    payload_sha256: str
    payload_bytes: int
    task: str
    step_count: int
    excluded: bool
    appended_at: datetime
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Found:
    """What was chosen, in the order of arrival: announcements, or rows where the topic holds none any more.

    newer: of how many the topic holds a newer revision than the row that the predicate named. It is taken, and
    whether the predicate holds of it too nobody knows. unseen: how many episodes the topic holds and the index
    does not yet: a predicate says nothing of them. ends: by partition of the topic, the offset behind all that was
    looked at.
    """

    episodes: tuple[Received[EpisodeMaterialized] | Row, ...]
    newer: int = 0
    unseen: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)

    def sizes(self) -> list[tuple[str, int, int]]:
        """Task, control steps and bytes of each episode."""
        known = [item.event if isinstance(item, Received) else item for item in self.episodes]
        return [(one.task, one.step_count, one.payload_bytes) for one in known]


def is_useless(event: EpisodeMaterialized) -> bool:
    """Whether nobody learns from it whatever is chosen: an evaluation, or what a label excludes."""
    return event.source is EpisodeSource.EVALUATION or event.excluded
