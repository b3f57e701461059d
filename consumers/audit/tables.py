"""ClickHouse as an audit asks for it: block by block, as analysts see it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from consumers.audit.announced import Announcements
from consumers.audit.buried import Buried, Place
from consumers.audit.buried import compare_rows as compare_dead_rows
from consumers.audit.findings import Finding, Kind, Report, Where
from consumers.audit.interventions import INTERVENTION_ROWS, InterventionRows, Interventions
from consumers.audit.progress import Stages
from consumers.audit.rows import (
    EPISODE_ROWS,
    EpisodeRow,
    compare_rows,
    is_alone,
    is_newer,
    missing_row,
    missing_rows,
)
from consumers.audit.standing import Standing
from consumers.ranges import RangeSet
from infra.clickhouse.client import Client, unavailable_as_ours
from infra.settings import ClickHouseSettings
from schemas.topics import DEAD_LETTERS, TRAINING_EPISODES


class Tables:
    """The tables of one database; what is wrong with them goes into `report`.

    Raises (all methods):
        ClickHouseUnavailable: no answer in time.
    """

    def __init__(self, settings: ClickHouseSettings, client: Client, report: Report, stages: Stages) -> None:
        self._settings, self._client = settings, client
        self._report, self._stages = report, stages
        self.alone: set[str] = set()
        """Episodes of which nothing but a row from the object store speaks, or speaks of its revision."""

    def check_episodes(self, announcements: Announcements, buried: Buried, at: Standing, since: float) -> None:
        """Rows of episodes and interventions; none announced at `since` (seconds) or later may be missing."""
        read_to, indexed = at.read_to, at.indexed[TRAINING_EPISODES]
        interventions = self._interventions(announcements, indexed)
        newer: set[str] = set()
        with self._stages.stage("rows", len(announcements.episodes)) as advance:

            def rows() -> Iterator[EpisodeRow]:
                for values in self._rows(EPISODE_ROWS):
                    advance(1)
                    self._report.checked["rows"] += 1
                    row = EpisodeRow(*_as_text(values))
                    if is_newer(row, read_to):
                        newer.add(row.episode_id)
                    yield row

            for finding in compare_rows(announcements, rows(), read_to, indexed):
                self._report.add(finding)
                if finding.kind is Kind.ORPHANED and is_alone(finding):
                    self.alone.add(str(finding.episode_id))
        for episode in missing_rows(announcements, indexed, since):
            expected = episode.expected_row(indexed) or episode.newest
            if buried.has((TRAINING_EPISODES, expected.partition), expected.offset):
                continue  # ClickHouse refused it, and dead-letters says why
            self._report.add(missing_row(episode))
        for finding in interventions.findings(frozenset(newer), since):
            place = (TRAINING_EPISODES, finding.partition or 0)
            if finding.kind is not Kind.MISSING or not buried.has(place, finding.offset or 0):
                self._report.add(finding)
        revisions = (r for episode in announcements.episodes.values() for r in episode.revisions.values())
        if waiting := sum(r.offset >= indexed.get(r.partition, 0) for r in revisions):
            self._report.notes.append(
                f"the index has not come to {waiting} announcements: their rows are not judged"
            )

    def _interventions(self, announcements: Announcements, indexed: dict[int, int]) -> Interventions:
        found = Interventions(announcements, indexed)
        with self._stages.stage("intervention rows", None) as advance:

            def rows() -> Iterator[InterventionRows]:
                for episode_id, own in self._rows(INTERVENTION_ROWS):
                    advance(1)
                    self._report.checked["intervention rows"] += len(own)
                    yield InterventionRows(
                        str(episode_id), tuple((str(name), int(number)) for name, number in own)
                    )

            found.add(rows())
        return found

    def check_dead_letters(self, buried: Buried, at: Standing) -> None:
        """Rows of dead letters."""
        rows: dict[Place, RangeSet] = defaultdict(RangeSet)
        with self._stages.stage("dead-letter rows", None) as advance:
            for topic, number, offset, appended_ms in self._rows(
                "SELECT topic, partition, offset, toUnixTimestamp64Milli(appended_at) FROM dead_letters"
            ):
                advance(1)
                self._report.checked["dead-letter rows"] += 1
                place = (str(topic), int(number))
                rows[place].add(int(offset))
                if _is_extra(buried, at, place, int(offset), int(appended_ms)):
                    name = f"{topic}[{number}]@{offset}"
                    text = "is in ClickHouse and not on dead-letters; it came from elsewhere"
                    self._report.add(Finding(Kind.ORPHANED, Where.DEAD_LETTER_ROWS, name, text))
        for finding in compare_dead_rows(buried.rows, rows):
            self._report.add(finding)

    def _rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Rows of a query, block by block."""
        with unavailable_as_ours(self._settings), self._client.query_rows_stream(sql) as stream:
            yield from stream


def _is_extra(buried: Buried, at: Standing, place: Place, offset: int, appended_ms: int) -> bool:
    """Whether a row has no dead letter although its time lies among those that were read."""
    newest, oldest = buried.newest_ms.get(place[1], 0), buried.oldest_ms.get(place[1], 0)
    whole = at.dead.get((DEAD_LETTERS, place[1]), (0, 0))[0] == 0
    within = appended_ms < newest and (whole or appended_ms > oldest)
    return within and not buried.has(place, offset)


def _as_text(values: tuple[Any, ...]) -> list[Any]:
    """Fixed strings come as bytes."""
    return [value.decode() if isinstance(value, bytes) else value for value in values]
