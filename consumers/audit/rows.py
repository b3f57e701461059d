"""Rows of ClickHouse against the announcements. Pure: rows in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from consumers.audit.announced import Announcements, Episode
from consumers.audit.findings import Finding, Kind, Where


class EpisodeRow(NamedTuple):
    """The columns of `episodes` that are compared, in the order in which they are asked for."""

    task: str
    episode_id: str
    revision: int
    payload_sha256: str
    step_count: int
    stream_partition: int
    stream_offset: int


EPISODE_ROWS = (
    "SELECT task, toString(episode_id), revision, toString(payload_sha256), step_count, "
    "stream_partition, stream_offset FROM episodes"
)
"""Asks for them."""
NOT_ON_THE_STREAM = -1
"""`stream_offset` of rows that `sop reindex --from s3` made from the object store alone."""

_ALONE = (
    "it was made from the object store alone (`sop reindex --from s3`), and may be the only row of an episode "
    "whose announcement was lost. --repair leaves it; --repair --delete-unannounced deletes it"
)


def compare_rows(
    announcements: Announcements,
    rows: Iterable[EpisodeRow],
    read_to: Mapping[int, int],
    indexed_to: Mapping[int, int],
) -> Iterator[Finding]:
    """Rows that say something else than the stream, or of which it knows nothing.

    Args:
        announcements: the stream, as far as it was read; rows that were found are marked as `indexed`.
        rows: the newest row of each episode, as analysts see them.
        read_to: next offset of the training stream by partition number, as far as it was read. What lies beyond
            is newer than this audit, and not judged.
        indexed_to: the index's committed offsets likewise, asked for before the rows were.
    """
    for row in rows:
        episode = announcements.episodes.get(row.episode_id)
        newer = is_newer(row, read_to)
        if episode is None or episode.task != row.task:
            if row.stream_offset == NOT_ON_THE_STREAM:
                yield _finding(Kind.ORPHANED, row, f"no announcement on the stream says so; {_ALONE}")
            elif not newer:
                yield _finding(Kind.ORPHANED, row, "no announcement on the stream says so; --repair deletes it")
            continue
        if episode.indexed:
            yield _finding(Kind.DOUBLED, row, "another row of this episode was there before")
        episode.indexed = True
        expected = episode.expected_row(indexed_to)
        announced = episode.revisions.get(row.revision)
        if announced is None and row.stream_offset == NOT_ON_THE_STREAM:
            yield _finding(Kind.ORPHANED, row, f"no such revision was announced; {_ALONE}")
            continue
        if announced is None:
            problem = None if newer else "no such revision was announced"
        elif (announced.sha256, announced.steps) != (row.payload_sha256, row.step_count):
            problem = f"announced were {announced.steps} steps, sha256 {announced.sha256}"
        elif expected is not None and row.revision < expected.number:
            problem = f"the index has passed revision {expected.number}"
        else:
            problem = None
        if problem is not None:
            shown = (
                f"says {row.step_count} steps, sha256 {row.payload_sha256}; {problem}; --repair inserts it anew"
            )
            yield _finding(Kind.WRONG, row, shown)


def is_newer(row: EpisodeRow, read_to: Mapping[int, int]) -> bool:
    """Whether a row's announcement lies beyond what was read of the stream."""
    return row.stream_offset >= read_to.get(row.stream_partition, 0)


def is_alone(finding: Finding) -> bool:
    """Whether a finding's row was made from the object store alone."""
    return bool(finding.detail) and finding.detail[-1] == NOT_ON_THE_STREAM


def missing_rows(announcements: Announcements, indexed_to: Mapping[int, int], since: float) -> Iterator[Episode]:
    """Episodes that the index has passed, announced at `since` (seconds) or later, of which there was no row."""
    for episode in announcements.episodes.values():
        expected = episode.expected_row(indexed_to)
        if not episode.indexed and expected is not None and expected.materialized_at >= since:
            yield episode


def missing_row(episode: Episode) -> Finding:
    """An announced episode has no row."""
    newest = episode.newest
    return Finding(
        Kind.MISSING,
        Where.ROWS,
        f"episode {episode.episode_id} revision {newest.number}",
        "announced, passed by the index, and not in ClickHouse; --repair inserts it",
        episode_id=episode.episode_id,
        revision=newest.number,
        topic="training-episodes",
        partition=newest.partition,
        offset=newest.offset,
    )


def _finding(kind: Kind, row: EpisodeRow, text: str) -> Finding:
    return Finding(
        kind,
        Where.ROWS,
        f"episode {row.episode_id} revision {row.revision} (task {row.task})",
        text,
        episode_id=row.episode_id,
        revision=row.revision,
        detail=row,
    )
