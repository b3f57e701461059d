"""`sop reconcile`: robot topics and labels ↔ training stream ↔ objects ↔ rows, compared thing by thing.

Safe beside live processes. Positions are taken first, in an order in which nothing under way can look lost:
the materializer's and the index's committed offsets, then the ends of the topics. What is newer is not judged.
Memory grows with episodes, not with events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from consumers.audit import footage
from consumers.audit.accounting import Accounting
from consumers.audit.announced import Announcements, Episode
from consumers.audit.buried import Buried, Place
from consumers.audit.claims import claims_of, offset_and_value
from consumers.audit.doubles import Doubles
from consumers.audit.findings import Finding, Kind, Report, Where
from consumers.audit.labels import check_label
from consumers.audit.objects import compare_listing, missing_object, missing_objects, wrong_object
from consumers.audit.progress import Stages
from consumers.audit.reading import announcement_of, scan, size_of
from consumers.audit.repair import Repair
from consumers.audit.standing import take_standing
from consumers.audit.tables import Tables
from consumers.audit.tombstones import in_vain, tombstone_in_vain
from consumers.dead_letters import headers, place_of
from consumers.tombstone import TombstoneUnreadable, is_tombstone, read_tombstone
from infra.belonging import refuse_another
from infra.clickhouse.client import Client, connect
from infra.clock import Clock, SystemClock
from infra.errors import DeploymentConflict, ObjectMissing
from infra.kafka import LogReader, Message
from infra.kafka.identity import cluster_id
from infra.object_store import Entry, ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.events import FrameSegment
from schemas.topics import DEAD_LETTERS, ROBOT_TOPICS, TRAINING_EPISODES

HASHERS = 8
"""Objects that `deep` reads at the same time; each is in memory once."""
ROWS_EXPIRE = timedelta(days=89)
"""ClickHouse forgets dead letters after 90 days (infra/clickhouse/migrations): a day before, none is missed."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to audit.

    since: judge what was appended or announced then or later; all by default. grace: an object that is younger may
    be about to be announced. deep: read objects, and compare their sha256. repair: mend what can be mended.
    delete_unannounced: then delete rows, too, that come from the object store alone.
    """

    since: datetime | None = None
    grace: timedelta = timedelta(hours=24)
    deep: bool = False
    repair: bool = False
    delete_unannounced: bool = False


def reconcile(
    settings: Settings, options: Options, stages: Stages | None = None, clock: Clock | None = None
) -> Report:
    """Audit everything.

    Raises:
        infra.errors.Unavailable: a server does not answer; nothing was decided.
        infra.errors.DeploymentConflict: something is to be mended, and the bucket belongs to another Kafka.
        infra.errors.OffsetsExpired: retention deleted what was about to be read; run it again.
    """
    reader = LogReader(settings.kafka, "reconcile")
    client = connect(settings.clickhouse)
    try:
        return _Audit(
            settings,
            options,
            reader=reader,
            client=client,
            stages=stages or Stages(),
            clock=clock or SystemClock(),
        ).run()
    finally:
        client.close()
        reader.close()


class _Audit:
    def __init__(
        self,
        settings: Settings,
        options: Options,
        *,
        reader: LogReader,
        client: Client,
        stages: Stages,
        clock: Clock,
    ) -> None:
        self._settings, self._options = settings, options
        self._reader, self._client, self._stages = reader, client, stages
        self._registry = Registry(settings.registry)
        self._objects = ObjectStore(settings.s3)
        self._started = clock.now()
        self._since = options.since.timestamp() if options.since else 0.0
        self.report = Report()
        self._at = take_standing(settings, reader, options.since)
        self.announcements = Announcements(self._objects.uri(""))
        self.buried = Buried()

    def run(self) -> Report:
        """Compare, and mend if that is asked for."""
        self._check_owner()
        self._read_dead_letters()
        self._read_training_stream()
        self._check_robot_topics()
        self._check_labels()
        self._check_objects()
        self._check_frames()
        if self._options.deep:
            self._check_contents()
        tables = Tables(self._settings.clickhouse, self._client, self.report, self._stages)
        tables.check_episodes(self.announcements, self.buried, self._at, self._since)
        tables.check_dead_letters(self.buried, self._at)
        if self._options.repair:
            Repair(
                self._settings,
                self._reader,
                self._registry,
                self._client,
                self._stages,
                delete_unannounced=self._options.delete_unannounced,
            ).mend(self.report, self._at.training | self._at.dead, len(self.announcements.episodes), tables.alone)
        return self.report

    def _check_owner(self) -> None:
        """Beside another Kafka everything looks like garbage: that is said, and nothing is mended."""
        try:
            refuse_another(self._objects, cluster_id(self._settings.kafka))
        except DeploymentConflict as error:
            if self._options.repair:
                raise
            self.report.notes.append(str(error))

    def _read_dead_letters(self) -> None:
        expired_ms = int((self._started - ROWS_EXPIRE).timestamp() * 1000)
        indexed = self._at.indexed[DEAD_LETTERS]
        with self._stages.stage("dead-letters", size_of(self._at.dead)) as advance:
            for messages in scan(self._reader, self._at.dead, advance):
                letters: dict[Place, dict[int, tuple[bytes | None, str]]] = defaultdict(dict)
                for message in messages:
                    self._add_dead_letter(message, letters, expired_ms, indexed)
                for place, by_offset in letters.items():
                    self._add_claims(place, by_offset)
        self.report.checked["dead letters"] = sum(offsets.count() for offsets in self.buried.places.values())

    def _add_dead_letter(
        self,
        message: Message,
        letters: dict[Place, dict[int, tuple[bytes | None, str]]],
        expired_ms: int,
        indexed: dict[int, int],
    ) -> None:
        number, at = int(message.partition() or 0), int(message.offset() or 0)
        try:
            topic, partition, offset = place_of(message)
        except ValueError as error:
            text = f"{error}: nobody can tell which record it is"
            self.report.add(Finding(Kind.WRONG, Where.DEAD_LETTERS, f"{DEAD_LETTERS}[{number}]@{at}", text))
            return
        appended_ms = message.timestamp()[1]
        twice = self.buried.has((topic, partition), offset)
        for finding in self.buried.add((topic, partition), offset, (number, at), appended_ms):
            self.report.add(finding)
        if at < indexed.get(number, 0) and appended_ms >= max(expired_ms, self._since * 1000):
            self.buried.rows[(topic, partition)].add(offset)
        if topic in ROBOT_TOPICS and not twice:
            letters[(topic, partition)][offset] = offset_and_value(message)[1], headers(message).get("reason", "")

    def _add_claims(self, place: Place, letters: dict[int, tuple[bytes | None, str]]) -> None:
        """Whose events dead letters hold; records of one partition, by their offset."""
        records = [(offset, value) for offset, (value, _) in letters.items()]
        for claim in claims_of(place, records, self._registry.schema_of).claims:
            for sequence, offset in zip(claim.sequences.tolist(), claim.offsets.tolist(), strict=True):
                value, reason = letters[offset]
                for finding in self.buried.claim(claim.owner, sequence, reason, value, at=(place, offset)):
                    self.report.add(finding)

    def _read_training_stream(self) -> None:
        """All of it, whatever `since` says: an old announcement may account for a record that came again."""
        with self._stages.stage("training stream", size_of(self._at.training)) as advance:
            for messages in scan(self._reader, self._at.training, advance):
                for message in messages:
                    number, offset = int(message.partition() or 0), int(message.offset() or 0)
                    self.report.checked["announcements"] += 1
                    try:
                        event = announcement_of(message, self._registry)
                    except SchemaError as error:
                        name = f"{TRAINING_EPISODES}[{number}]@{offset}"
                        self.report.add(Finding(Kind.WRONG, Where.TRAINING_STREAM, name, str(error)))
                        continue
                    for finding in self.announcements.add(event, number, offset):
                        self.report.add(finding)
        self.report.checked["episodes"] = len(self.announcements.episodes)
        if first := [f"[{n}] at {low}" for (_, n), (low, _) in sorted(self._at.training.items()) if low]:
            self.report.notes.append(
                f"{TRAINING_EPISODES} does not begin at 0 ({', '.join(first)}): it should be kept"
            )

    def _check_robot_topics(self) -> None:
        whole = all(low == 0 for low, _ in self._at.dead.values())
        accounting = Accounting(self.announcements, self.buried, self._at.committed, whole_dead_letters=whole)
        read_whole = frozenset(place for place, (low, _) in self._at.robots.items() if low == 0)
        doubles = Doubles(self.announcements, self.buried, read_whole)
        with self._stages.stage("robot topics", size_of(self._at.robots)) as advance:
            for messages in scan(self._reader, self._at.robots, advance):
                place = (str(messages[0].topic()), int(messages[0].partition() or 0))
                records = [offset_and_value(message) for message in messages]
                claims = claims_of(place, records, self._registry.schema_of)
                accounting.add(claims)
                doubles.add(claims, records)
        for finding in (*accounting.findings(), *doubles.findings(), *self._expired()):
            self.report.add(finding)
        report = self.report
        report.checked["robot records"] = accounting.checked
        for (episode_id, robot_id, _), count in accounting.open.items():
            report.open[episode_id] = f"robot {robot_id}, {count} events so far"
        if accounting.unread:
            report.notes.append(f"{accounting.unread} unreadable records were not yet passed by the materializer")
        for (topic, number), (low, end) in sorted(self._at.robots.items()):
            if low > 0:
                report.notes.append(f"{topic}[{number}] could be looked at from offset {low} (of {end})")

    def _check_labels(self) -> None:
        """All of them, whatever `since` says: they are few, and kept for ever."""
        with self._stages.stage("labels", size_of(self._at.labels)) as advance:
            for messages in scan(self._reader, self._at.labels, advance):
                for message in messages:
                    self.report.checked["labels"] += 1
                    for finding in check_label(
                        message, self._registry, self.announcements, self.buried, self._at.committed
                    ):
                        self.report.add(finding)

    def _expired(self) -> Iterator[Finding]:
        """Records that retention took before the materializer had read them."""
        for (topic, number), offset in sorted(self._at.committed.items()):
            low = self._reader.bounds((topic, number))[0]
            if offset < low:
                yield Finding(
                    Kind.MISSING,
                    Where.ROBOT_TOPICS,
                    f"{topic}[{number}]@{offset}..{low - 1}",
                    "deleted by retention before the materializer read them (docs/operations.md, Offsets expired)",
                    topic=topic,
                    partition=number,
                    offset=offset,
                )
        if lacking := sorted(self._at.robots.keys() - self._at.committed.keys()):
            self.report.notes.append(f"the materializer has no committed offsets for {lacking}: run `sop deploy`")

    def _check_objects(self) -> None:
        young_after, tombstones = self._started - self._options.grace, list[Entry]()
        with self._stages.stage("objects", None) as advance:

            def counted() -> Iterator[Entry]:
                for entry in self._objects.entries("episodes/"):
                    self.report.checked["objects"] += 1
                    advance(1)
                    if is_tombstone(entry.key) and entry.modified < young_after:
                        tombstones.append(entry)
                    yield entry

            for finding in compare_listing(self.announcements, counted(), young_after):
                self.report.add(finding)
        for entry in tombstones:
            self._check_tombstone(entry)
        for episode in missing_objects(self.announcements, self._since):
            key = episode.newest.key
            if not key or not self._objects.exists(key):  # it may have been stored again since the listing
                self.report.add(missing_object(episode))

    def _check_tombstone(self, entry: Entry) -> None:
        """Few there are: of episodes whose start did not come in time."""
        try:
            tombstone = read_tombstone(entry.key, self._objects.get(entry.key))
        except ObjectMissing:
            return  # `sop gc` is at work
        except TombstoneUnreadable as error:
            self.report.add(Finding(Kind.WRONG, Where.OBJECTS, entry.key, str(error), key=entry.key))
            return
        if in_vain(tombstone, self._at.committed, self.buried, self._at.dead):
            self.report.add(tombstone_in_vain(entry, tombstone))

    def _check_frames(self) -> None:
        """Objects of cameras against what newest revisions refer to; payloads are read where numbers differ."""
        young_after = self._started - self._options.grace
        seen: set[str] = set()
        with self._stages.stage("frames", None) as advance:
            for stored in footage.by_episode(self._objects.entries(footage.FOLDER)):
                self.report.checked["frame objects"] += len(stored.entries)
                advance(len(stored.entries))
                episode = self.announcements.episodes.get(stored.episode_id)
                seen.add(stored.episode_id)
                alike = episode is not None and episode.newest.frame_objects == len(stored.entries)
                if alike and not self._options.deep:
                    continue  # one that is missing may hide behind one too many: `deep` compares names
                wanted = {} if episode is None else footage.referred(episode, self._objects)
                if wanted is None:
                    continue  # its payload is missing or wrong, which is said elsewhere
                if stored.episode_id not in self.report.open:
                    for entry in stored.entries:
                        if entry.key not in wanted and entry.modified < young_after:
                            self.report.add(footage.orphan(entry, stored.episode_id))
                there = {entry.key for entry in stored.entries}
                self._add_missing_frames(episode, {k: v for k, v in wanted.items() if k not in there})
            for episode in self.announcements.episodes.values():
                if episode.newest.frame_objects and episode.episode_id not in seen:
                    self._add_missing_frames(episode, footage.referred(episode, self._objects) or {})

    def _add_missing_frames(self, episode: Episode | None, absent: dict[str, FrameSegment]) -> None:
        if episode is None or episode.newest.materialized_at < self._since:
            return
        for key, segment in absent.items():
            if not self._objects.exists(key):  # it may have been stored since the listing
                self.report.add(footage.missing(episode, key, segment))

    def _check_contents(self) -> None:
        """Read every object of a newest revision, and compare its sha256; a few at a time."""
        stored = [e for e in self.announcements.episodes.values() if e.stored]
        judged = [e for e in stored if e.newest.materialized_at >= self._since]
        with (
            self._stages.stage("contents of objects", len(judged)) as advance,
            ThreadPoolExecutor(HASHERS, thread_name_prefix="hash") as pool,
        ):
            for at in range(0, len(judged), HASHERS * 8):
                wave = judged[at : at + HASHERS * 8]
                for episode, finding in zip(wave, pool.map(self._content_problem, wave), strict=True):
                    advance(1)
                    if finding is not None and not _named(self.report, episode):
                        self.report.add(finding)
            for episode in judged:
                if episode.newest.frame_objects:
                    for finding in pool.map(self._frames_problem, *self._segments_of(episode)):
                        if finding is not None:
                            self.report.add(finding)

    def _segments_of(self, episode: Episode) -> tuple[list[Episode], list[str], list[FrameSegment]]:
        wanted = footage.referred(episode, self._objects) or {}
        return [episode] * len(wanted), list(wanted), list(wanted.values())

    def _frames_problem(self, episode: Episode, key: str, segment: FrameSegment) -> Finding | None:
        try:
            found = sha256_hex(self._objects.get(key))
        except ObjectMissing:
            return None  # is said already
        text = f"its bytes have sha256 {found}"
        return None if found == segment.sha256 else footage.wrong(episode, key, text)

    def _content_problem(self, episode: Episode) -> Finding | None:
        try:
            found = sha256_hex(self._objects.get(episode.newest.key))
        except ObjectMissing:
            return missing_object(episode)
        return None if found == episode.newest.sha256 else wrong_object(episode, f"its bytes have sha256 {found}")


def _named(report: Report, episode: Episode) -> bool:
    return any(f.key == episode.newest.key and f.where is Where.OBJECTS for f in report.findings)
