"""The training stream, folded: for each episode what was announced, and whether each announcement could be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from sys import intern

from consumers.audit.findings import Finding, Kind, Where
from consumers.payload import folder
from consumers.ranges import RangeSet
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES

ANOTHER_BUCKET = ""
"""Key of an announcement whose URI is not in our bucket."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One announcement: where it lies on the stream, and what it says of its object. Sizes in bytes."""

    number: int
    partition: int
    offset: int
    key: str
    sha256: str
    size: int
    steps: int
    materialized_at: float
    interventions: tuple[str, ...] = ()
    frame_objects: int = 0


@dataclass(slots=True)
class Episode:
    """An announced episode; `sequences`, `rejected` and `labels` (ids) are its newest revision's."""

    episode_id: str
    robot_id: str
    boot_epoch: int
    task: str
    revisions: dict[int, Revision] = field(default_factory=dict)
    sequences: RangeSet = field(default_factory=RangeSet)
    rejected: RangeSet = field(default_factory=RangeSet)
    labels: frozenset[str] = frozenset()
    stored: bool = False
    indexed: bool = False

    @property
    def newest(self) -> Revision:
        """The revision that readers keep."""
        return self.revisions[max(self.revisions)]

    def expected_row(self, indexed_to: Mapping[int, int]) -> Revision | None:
        """The newest revision that the index has passed, given its next offset by partition number."""
        passed = [r for r in self.revisions.values() if r.offset < indexed_to.get(r.partition, 0)]
        return max(passed, key=lambda revision: revision.number, default=None)


class Announcements:
    """Episodes by id. Memory is by episode, about 1 KB each, whatever their length.

    Args:
        bucket: what the objects' addresses begin with, `s3://bucket/`.
    """

    def __init__(self, bucket: str) -> None:
        self.episodes: dict[str, Episode] = {}
        self._bucket = bucket

    def add(self, event: EpisodeMaterialized, partition: int, offset: int) -> Iterator[Finding]:
        """Take in an announcement, in the stream's order; what is wrong with it."""
        episode = self.episodes.get(event.episode_id)
        if episode is None:
            episode = Episode(event.episode_id, intern(event.robot_id), event.boot_epoch, intern(event.task))
            self.episodes[event.episode_id] = episode
        before = episode.revisions.get(event.revision)
        accounted = RangeSet.of((*event.sequences, *event.rejected))
        newest = max(episode.revisions, default=0)
        if before is not None:
            yield self._finding(
                Kind.DOUBLED,
                event,
                partition,
                offset,
                f"also at offset {before.offset} of partition {before.partition}, with "
                f"{'the same' if before.sha256 == event.payload_sha256 else 'ANOTHER'} payload. A log cannot be "
                f"mended; readers keep the highest revision, and of equal ones the first",
            )
            return
        if event.revision < newest:
            text = f"announced after revision {newest}: revisions must grow. Readers keep revision {newest}"
            yield self._finding(Kind.WRONG, event, partition, offset, text)
        episode.revisions[event.revision] = Revision(
            event.revision,
            partition,
            offset,
            self.key_of(event),
            event.payload_sha256,
            event.payload_bytes,
            event.step_count,
            event.materialized_at.timestamp(),
            tuple(span.intervention_id for span in event.interventions),
            event.frame_objects,
        )
        if event.revision < newest:
            return
        lost = _both(episode).without(accounted)
        labels = frozenset(label.label_id for label in event.labels)
        gone, episode.labels = episode.labels - labels, labels
        episode.sequences, episode.rejected = RangeSet.of(event.sequences), RangeSet.of(event.rejected)
        if lost:
            text = f"sequences {spoken(lost)} are in revision {newest} and not in this one"
            yield self._finding(Kind.MISSING, event, partition, offset, text)
        if gone:
            text = f"labels {', '.join(sorted(gone))} are in revision {newest} and not in this one"
            yield self._finding(Kind.MISSING, event, partition, offset, text)

    def key_of(self, event: EpisodeMaterialized) -> str:
        """Key of an announced object; `ANOTHER_BUCKET` if it is not in ours."""
        key = event.payload_uri.removeprefix(self._bucket)
        return ANOTHER_BUCKET if key == event.payload_uri else key

    def _finding(self, kind: Kind, event: EpisodeMaterialized, partition: int, offset: int, text: str) -> Finding:
        return Finding(
            kind,
            Where.TRAINING_STREAM,
            f"episode {event.episode_id} revision {event.revision} at {TRAINING_EPISODES}[{partition}]@{offset}",
            text,
            episode_id=event.episode_id,
            revision=event.revision,
            topic=TRAINING_EPISODES,
            partition=partition,
            offset=offset,
        )


def episode_of(key: str) -> tuple[str, int] | None:
    """Episode and revision that an object's key names; None when it is no payload's."""
    parts = key.split("/")
    if len(parts) != 3 or not parts[2].endswith(".parquet"):
        return None
    number, dash, sha256 = parts[2].removesuffix(".parquet").partition("-")
    if folder(parts[1]) != f"{parts[0]}/{parts[1]}/" or not number.isdigit() or not dash or len(sha256) != 64:
        return None
    return parts[1], int(number)


def spoken(numbers: RangeSet, most: int = 5) -> str:
    """Ranges for people: `3..7, 9`, at most `most` of them."""
    parts = [f"{low}..{high}" if high > low else str(low) for low, high in numbers]
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more ranges" if len(parts) > most else "")


def _both(episode: Episode) -> RangeSet:
    both = RangeSet(episode.sequences)
    both.update(episode.rejected)
    return both
