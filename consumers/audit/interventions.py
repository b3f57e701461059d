"""Rows of interventions against the announcements. Pure: rows in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from consumers.audit.announced import Announcements, Episode
from consumers.audit.findings import Finding, Kind, Where


class InterventionRows(NamedTuple):
    """The rows of one episode: each intervention, and the revision that its row says."""

    episode_id: str
    rows: tuple[tuple[str, int], ...]


INTERVENTION_ROWS = (
    "SELECT toString(episode_id), groupArray((toString(intervention_id), revision)) FROM interventions "
    "GROUP BY episode_id"
)
"""Asks for them."""


class Interventions:
    """Compares them, episode by episode.

    Args:
        announcements: the stream, as far as it was read.
        indexed_to: the index's committed offsets by partition number, asked for before the rows were.
    """

    def __init__(self, announcements: Announcements, indexed_to: Mapping[int, int]) -> None:
        self._announcements, self._indexed_to = announcements, indexed_to
        self._judged: dict[str, list[Finding]] = {}

    def add(self, found: Iterable[InterventionRows]) -> None:
        """Take rows in: all of them, each episode once."""
        for episode_id, rows in found:
            self._judged[episode_id] = list(self._judge(episode_id, rows))

    def findings(self, newer: frozenset[str], since: float) -> Iterator[Finding]:
        """What is wrong with them.

        Args:
            newer: episodes whose row is newer than this audit, read after the rows of interventions were: an
                episode is inserted before its interventions, so none of a newer one is taken for an orphan.
            since: nothing is missing that was announced before (seconds).
        """
        for episode_id, findings in self._judged.items():
            if episode_id not in newer:
                yield from (f for f in findings if f.kind is not Kind.MISSING or self._announced_at(f) >= since)
        for episode in self._announcements.episodes.values():
            expected = episode.expected_row(self._indexed_to)
            if episode.episode_id in self._judged or expected is None or expected.materialized_at < since:
                continue
            yield from self._missing(episode, set())

    def _judge(self, episode_id: str, rows: Iterable[tuple[str, int]]) -> Iterator[Finding]:
        episode = self._announcements.episodes.get(episode_id)
        if episode is None:
            for intervention_id, revision in rows:
                yield _extra(Kind.ORPHANED, episode_id, intervention_id, revision, "nobody announced its episode")
            return
        expected = episode.expected_row(self._indexed_to)
        wanted = set(expected.interventions) if expected else set()
        ever = {name for revision in episode.revisions.values() for name in revision.interventions}
        for intervention_id, number in rows:
            announced = episode.revisions.get(number)
            row = (episode_id, intervention_id, number)
            if intervention_id not in ever:
                yield _extra(Kind.ORPHANED, *row, "no announcement of its episode names it")
            elif announced is None or intervention_id not in announced.interventions:
                yield _extra(Kind.WRONG, *row, "no announcement names it in this revision")
            elif expected is not None and number < expected.number:
                if intervention_id in wanted:
                    yield _extra(Kind.WRONG, *row, f"the index has passed revision {expected.number}")
                else:
                    yield _extra(Kind.ORPHANED, *row, f"revision {expected.number} does not name it any more")
        yield from self._missing(episode, {intervention_id for intervention_id, _ in rows})

    def _missing(self, episode: Episode, found: set[str]) -> Iterator[Finding]:
        expected = episode.expected_row(self._indexed_to)
        for intervention_id in expected.interventions if expected else ():
            if expected is not None and intervention_id not in found:
                yield Finding(
                    Kind.MISSING,
                    Where.INTERVENTION_ROWS,
                    _name(episode.episode_id, intervention_id, expected.number),
                    "announced, passed by the index, and not in ClickHouse; --repair inserts it",
                    episode_id=episode.episode_id,
                    revision=expected.number,
                    topic="training-episodes",
                    partition=expected.partition,
                    offset=expected.offset,
                )

    def _announced_at(self, finding: Finding) -> float:
        episode = self._announcements.episodes[str(finding.episode_id)]
        return episode.revisions[int(finding.revision or 0)].materialized_at


def _extra(kind: Kind, episode_id: str, intervention_id: str, revision: int, problem: str) -> Finding:
    does = "deletes it" if kind is Kind.ORPHANED else "inserts it anew"
    return Finding(
        kind,
        Where.INTERVENTION_ROWS,
        _name(episode_id, intervention_id, revision),
        f"{problem}; --repair {does}",
        episode_id=episode_id,
        revision=revision,
        detail=(episode_id, intervention_id, revision),
    )


def _name(episode_id: str, intervention_id: str, revision: int) -> str:
    return f"intervention {intervention_id} of episode {episode_id} revision {revision}"
