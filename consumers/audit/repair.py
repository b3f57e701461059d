"""`sop reconcile --repair`: what can be made again from what is still there, is.

Rows are inserted again from the training stream. A row that says what no announcement says is deleted first, by
exactly its content, so that a live index is never in the way; one that was made from the object store alone only
if that is asked for, because it may be all that is left of what a lost stream announced. Objects are folded again
from the robot topics. Logs cannot be mended, and orphans are `sop gc`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog

from consumers.audit.findings import Finding, Kind, Report, Where
from consumers.audit.loading import RowLoader
from consumers.audit.progress import Stages
from consumers.audit.reading import Spans, announcement_of, scan, size_of
from consumers.audit.rebuild import CannotRebuild, rebuild
from consumers.audit.rows import is_alone
from consumers.dead_letters import place_of
from consumers.rows import dead_letter_row, rows_of
from infra.clickhouse.client import Client, unavailable_as_ours
from infra.clickhouse.summing import forget_sums
from infra.kafka import LogReader, Message
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.events import EpisodeMaterialized
from schemas.topics import DEAD_LETTERS, TRAINING_EPISODES

DELETED_AT_ONCE = 500

_DELETE = (
    "ALTER TABLE raw_episodes DELETE WHERE (task, toString(episode_id), revision, toString(payload_sha256), "
    "step_count) IN {rows:Array(Tuple(String, String, UInt32, String, UInt32))}"
)

_DELETE_LATENCY = (
    "ALTER TABLE raw_episode_latency DELETE WHERE (task, toString(episode_id), revision) "
    "IN {rows:Array(Tuple(String, String, UInt32))}"
)
"""What raw_episodes fed: a row that is inserted again is fed again."""

_DELETE_INTERVENTIONS = (
    "ALTER TABLE raw_interventions DELETE WHERE (toString(episode_id), toString(intervention_id), revision) "
    "IN {rows:Array(Tuple(String, String, UInt32))}"
)

_log = structlog.get_logger(__name__)


class Repair:
    """Mends findings; each that is mended says how."""

    def __init__(
        self,
        settings: Settings,
        reader: LogReader,
        registry: Registry,
        client: Client,
        stages: Stages,
        *,
        delete_unannounced: bool = False,
    ) -> None:
        self._settings, self._reader, self._registry = settings, reader, registry
        self._client, self._stages = client, stages
        self._objects = ObjectStore(settings.s3)
        self._delete_unannounced = delete_unannounced

    def mend(self, report: Report, spans: Spans, episodes: int, alone: Collection[str]) -> None:
        """Mend what a report names.

        Args:
            report: what was found.
            spans: of training-episodes and dead-letters, as they were read.
            episodes: how many are announced; more rows to delete than that are a sign of a wrong database.
            alone: of which only a row from the object store speaks.
        """
        wrong = report.of(Where.ROWS, Kind.WRONG, Kind.ORPHANED, Kind.DOUBLED)
        interventions = report.of(Where.INTERVENTION_ROWS, Kind.WRONG, Kind.ORPHANED)
        if not self._delete_unannounced:
            wrong = [finding for finding in wrong if not is_alone(finding)]
            interventions = [finding for finding in interventions if finding.episode_id not in alone]
            if alone:
                report.notes.append(
                    f"rows of {len(alone)} episodes come from the object store alone and stay: the training "
                    "stream may have lost their announcements. If it has not, let --repair --delete-unannounced "
                    "delete them"
                )
        contradicting = len({str(finding.episode_id) for finding in (*wrong, *interventions)})
        if contradicting > max(10, episodes):
            report.notes.append(
                f"rows of {contradicting} episodes contradict a stream of {episodes}: are these ClickHouse and "
                "Kafka of one system? No row was deleted"
            )
        else:
            rows = [finding for finding in wrong if finding.kind is not Kind.DOUBLED]
            self._delete(_DELETE_LATENCY, rows, 3)
            self._delete(_DELETE, rows, 5, summed=True)
            self._delete(_DELETE_INTERVENTIONS, interventions, 3)
        # What was announced of an episode whose other rows were deleted is inserted, too.
        self._reinsert(report, spans, {str(finding.episode_id) for finding in wrong if finding.mended})
        self._rebuild(report, spans)

    def _delete(self, statement: str, findings: list[Finding], columns: int, *, summed: bool = False) -> None:
        """Delete rows by the first columns of their findings' detail.

        Sums of what is `summed` are forgotten before each deletion, as whoever dies after it never comes back to
        them, and after the last, as somebody may have summed meanwhile.
        """
        rows = [finding.detail[:columns] for finding in findings]
        for at in range(0, len(rows), DELETED_AT_ONCE):
            if summed:
                self._forget()
            with unavailable_as_ours(self._settings.clickhouse):
                self._client.command(
                    statement,
                    parameters={"rows": [tuple(row) for row in rows[at : at + DELETED_AT_ONCE]]},
                    settings={"mutations_sync": 1},
                )
        if rows and summed:
            self._forget()
        for finding in findings:
            if finding.kind is Kind.ORPHANED:
                finding.mended = "row deleted"

    def _forget(self) -> None:
        with unavailable_as_ours(self._settings.clickhouse):
            forget_sums(self._client)

    def _reinsert(self, report: Report, spans: Spans, also: set[str]) -> None:
        rows = report.of(Where.ROWS, Kind.MISSING, Kind.WRONG, Kind.DOUBLED)
        rows += report.of(Where.INTERVENTION_ROWS, Kind.MISSING, Kind.WRONG)
        wanted = {str(finding.episode_id) for finding in rows} | also
        with RowLoader(self._settings.clickhouse) as loader:

            def insert(message: Message) -> None:
                event = announcement_of(message, self._registry)
                if event.episode_id in wanted:
                    loader.add(rows_of(event, int(message.partition() or 0), int(message.offset() or 0)))

            if wanted:
                self._each(TRAINING_EPISODES, spans, insert)
            letters = report.of(Where.DEAD_LETTER_ROWS, Kind.MISSING)
            places = {(f.topic, f.partition, f.offset) for f in letters}

            def insert_letter(message: Message) -> None:
                if place_of(message) in places:
                    loader.add([dead_letter_row(message)])

            if places:
                self._each(DEAD_LETTERS, spans, insert_letter)
            loader.flush()
            if loader.refused:
                report.notes.append(f"ClickHouse refused {loader.refused} rows; see the log")
                return
        for finding in (*rows, *letters):
            finding.mended = "row inserted again"

    def _rebuild(self, report: Report, spans: Spans) -> None:
        broken = report.of(Where.OBJECTS, Kind.MISSING, Kind.WRONG)
        by_place = {(f.partition, f.offset): f for f in broken}
        announced: list[tuple[Finding, EpisodeMaterialized]] = []

        def find(message: Message) -> None:
            finding = by_place.get((message.partition(), message.offset()))
            if finding is not None:
                announced.append((finding, announcement_of(message, self._registry)))

        if broken:
            self._each(TRAINING_EPISODES, spans, find)
        with self._stages.stage("objects made again", len(announced)) as advance:
            for finding, event in announced:
                self._rebuild_one(finding, event)
                advance(1)

    def _rebuild_one(self, finding: Finding, event: EpisodeMaterialized) -> None:
        if not finding.key:
            finding.text += " (not rebuilt: it is in another bucket)"
            return
        try:
            self._objects.put(finding.key, rebuild(event, self._reader, self._registry))
        except CannotRebuild as error:
            finding.text += f" (not rebuilt: {error})"
        else:
            finding.mended = "rebuilt from the robot topics, same sha256"
            _log.info("object_rebuilt", key=finding.key)

    def _each(self, topic: str, spans: Spans, take: Callable[[Message], None]) -> None:
        """Read a topic once more, as far as it was read."""
        chosen = {p: span for p, span in spans.items() if p[0] == topic}
        with self._stages.stage(f"{topic} again", size_of(chosen)) as advance:
            for messages in scan(self._reader, chosen, advance):
                for message in messages:
                    try:
                        take(message)
                    except (SchemaError, ValueError, KeyError):
                        continue  # named already as what it is
