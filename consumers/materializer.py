"""`sop materialize`: robot topics → Parquet payloads on S3 → training-episodes, exactly once.

One turn of the loop: consume a batch, follow the group's assignment, fold the batch, let time pass, commit what
was sealed. Payloads are stored first; announcements, dead letters and offsets then go into one Kafka transaction,
which is the commit. Whenever a server does not answer, partitions are paused, the membership is kept alive, and
the same work is tried again with growing pauses; nothing in memory is thrown away for it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from consumers.assembly import Outcome, Sealed
from consumers.decode import decode
from consumers.graveyard import DeadLetterLog
from consumers.intake import Intake
from consumers.partition import OwnedPartition
from consumers.spill_folder import SpillFolder
from consumers.storing import Stored, announced_before, store_wave
from consumers.takeover import take_over
from infra import telemetry
from infra.backoff import Backoff
from infra.clock import Clock, SystemClock
from infra.errors import DiskFull, InfraError, ProducerFenced, SpillUnusable, TransactionAborted, Unavailable
from infra.health import Health
from infra.heap import settle_heap
from infra.kafka import GroupConsumer, LogReader, OutRecord, TransactionalProducer
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas import codec
from schemas.events import EpisodeMaterialized
from schemas.topics import EPISODE_TOPICS, ROBOT_TOPICS, TRAINING_EPISODES

_log = structlog.get_logger(__name__)

TELL_INTERVAL = 5.0
"""Seconds between looks at the lag."""
STORE_SECONDS = 20.0
"""Longest stay in the object store before the group is served again; the poll interval is 300 s."""
UPLOADS = 8
"""Payloads stored at the same time; an upload waits for the store, not for this machine."""
INTAKE = 4_000
"""Records that exist as Kafka's objects at the same time: 2 MB, which stay in the processor's caches."""
WAVE = 2 * UPLOADS
"""Episodes stored before the time is looked at again."""


class Materializer:
    """One member of the group. `turn` does a bounded amount of work; `close` leaves the group."""

    def __init__(self, settings: Settings, clock: Clock | None = None, health: Health | None = None) -> None:
        self._health = health or Health()
        self._settings = settings.materializer
        self._kafka = settings.kafka
        self._clock = clock or SystemClock()
        self._registry = Registry(settings.registry)
        self._objects = ObjectStore(settings.s3)
        self._spill = SpillFolder(self._settings.spill_dir)
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        # Fencing is by the group's generation, so the id need only be unique.
        self._transactional_id = f"materializer-{uuid.uuid4().hex}"
        self._producer: TransactionalProducer | None = None
        self._reader = LogReader(settings.kafka, "materializer-takeover")
        self._graveyard = DeadLetterLog(settings.kafka, self._reader)
        self._consumer = GroupConsumer(settings.kafka, self._settings.group, EPISODE_TOPICS)
        self._owned: dict[int, OwnedPartition] = {}
        self._backlog = Intake()
        self._committed_at = self._clock.monotonic()
        self._backoff = Backoff(self._clock)
        self._told_at = self._clock.monotonic()
        self._standing_by = False

    def turn(self) -> None:
        """One round of the loop.

        Raises:
            OffsetsExpired: records were deleted before they were read; an operator must decide.
        """
        self._health.beat()
        try:
            if (remaining := self._backoff.remaining()) > 0:
                self._stand_by(min(0.2, remaining))
                return
            self._work()
        except SpillUnusable as error:
            self._owned.clear()  # what was on disk is read again from Kafka
            self._back_off(error)
        except (Unavailable, TransactionAborted, ProducerFenced) as error:
            self._back_off(error)
        else:
            self._go_on()

    def _work(self) -> None:
        full = self._make_room()
        if full is None and not self._unstored() and not self._backlog:
            self._consume(self._settings.batch_size, self._settings.poll_timeout)
        elif not self._backlog:
            self._stand_by(0.01)
        self._ensure_producer()
        self._follow_assignment()
        self._fold()
        self._decide()
        self._apply_labels()
        full = full or self._make_room()
        self._let_time_pass()
        self._commit()
        self._tell()
        if full is not None:  # what is here was still sealed and committed, which may free what it takes on disk
            raise full

    def _stand_by(self, timeout: float) -> None:
        """Keep the membership while no more can be taken in: serve the group, and take what is on its way."""
        self._consumer.pause(sorted(self._consumer.assigned))
        self._standing_by = True
        self._consume(1, timeout)

    def close(self) -> None:
        """Leave the group. What was not committed is read again by whoever comes next."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._consumer.close()
        self._reader.close()
        self._spill.close()

    def _consume(self, count: int, timeout: float) -> None:
        """Take at most `count` records in; those that are here already come at once, some at a time."""
        while count > 0:
            found = self._consumer.consume(min(count, INTAKE), timeout)
            self._backlog.add(found)
            count -= len(found)
            if len(found) < INTAKE:
                return
            timeout = 0.0

    def _ensure_producer(self) -> TransactionalProducer:
        """The producer; a new one settles what an old one with the same id left open."""
        if self._producer is None:
            self._producer = TransactionalProducer(
                self._kafka, self._transactional_id, timeout=self._settings.transaction_timeout
            )
        return self._producer

    def _follow_assignment(self) -> None:
        """Drop partition numbers that went away, and take new ones over once all topics are here."""
        assigned = self._consumer.assigned
        epochs = self._consumer.epochs
        for number, owned in list(self._owned.items()):
            if any(p not in assigned or epochs[p] != epoch for p, epoch in owned.epochs.items()):
                del self._owned[number]
                self._drop_backlog(number)
        complete = {n for _, n in assigned if all((topic, n) in assigned for topic in EPISODE_TOPICS)}
        for number in sorted(complete - self._owned.keys()):
            # The take-over seeks to the committed offsets: what was delivered before it comes again.
            self._drop_backlog(number)
            self._owned[number] = take_over(
                number, self._consumer, self._reader, self._registry, self._settings.episode_timeout
            )
        for number in {number for _, number in assigned} - complete:
            self._drop_backlog(number)

    def _drop_backlog(self, number: int) -> None:
        self._backlog.drop(number)

    def _fold(self) -> None:
        """Decode the batch as a whole, then fold it in: an outage of the registry leaves nothing half done."""
        if not self._backlog:
            return
        with telemetry.STAGE_SECONDS.labels("decode").time():
            batch = decode(self._backlog, self._registry.schema_of)
        with telemetry.STAGE_SECONDS.labels("assemble").time():
            for number, part in batch.items():
                if number in self._owned:  # else it was taken away meanwhile, and is somebody else's to read
                    self._count(self._owned[number].add(part))
        telemetry.RECORDS_CONSUMED.labels("robot-*").inc(len(self._backlog))
        self._backlog = Intake()
        telemetry.EPISODES_OPEN.set(sum(len(owned.assembly.open) for owned in self._owned.values()))

    def _make_room(self) -> DiskFull | None:
        """Keep the memory of episodes bounded; the error that stands in the way, if one does."""
        episodes = [episode for owned in self._owned.values() for episode in owned.episodes()]
        try:
            if self._spill.make_room(episodes, self._settings.max_buffer_bytes):
                _log.info("episodes_spilled", episodes=len(episodes), on_disk=self._spill.nbytes())
        except DiskFull as error:
            return error
        return None

    def _unstored(self) -> bool:
        """Whether episodes are still waiting for the object store."""
        return any(owned.outbox.sealed or owned.assembly.undecided() for owned in self._owned.values())

    def _decide(self) -> None:
        """Let rejected records go to dead-letters, unless the newest revision of their episode tells of them.

        Raises:
            Unavailable: they wait.
        """
        for owned in self._owned.values():
            self._keeper.decide(owned, inf, self._count)

    def _apply_labels(self) -> None:
        """Hand labels to their episodes.

        Raises:
            ObjectStoreUnavailable: they wait.
        """
        for owned in self._owned.values():
            self._keeper.apply_labels(owned, inf)

    def _let_time_pass(self) -> None:
        """Seal episodes that fell silent. Only if one could be due are the ends of its topics asked for."""
        now_ms = int(self._clock.now().timestamp() * 1000)
        for owned in self._owned.values():
            oldest = owned.oldest_ms()
            if oldest is None or now_ms - oldest <= self._settings.episode_timeout * 1000:
                continue
            idle = frozenset(
                topic
                for topic in ROBOT_TOPICS
                if owned.positions[topic] >= self._consumer.end_offset((topic, owned.number))
            )
            self._count(owned.advance(now_ms, idle))

    def _count(self, outcome: Outcome) -> None:
        telemetry.DUPLICATES.inc(outcome.duplicates)
        for letter in outcome.dead:
            _log.warning(
                "dead_letter",
                reason=letter.reason.value,
                error=letter.error,
                topic=letter.origin.topic,
                offset=letter.origin.offset,
            )

    def _commit(self) -> None:
        """Store what was sealed, then commit it all; from time to time commit offsets alone."""
        waited = self._clock.monotonic() - self._committed_at
        pending = any(owned.outbox for owned in self._owned.values())
        if not pending and waited < self._settings.offsets_interval:
            return
        if waited < self._settings.commit_interval:
            return
        with telemetry.STAGE_SECONDS.labels("store").time():
            until = self._clock.monotonic() + STORE_SECONDS
            for owned in self._owned.values():
                self._store(owned, until)
        if self._unstored():
            return  # a slow store must not keep this member from its group: the rest comes in the next turn
        with telemetry.STAGE_SECONDS.labels("commit").time():
            self._transact([owned for owned in self._owned.values() if self._has_news(owned)])
        self._committed_at = self._clock.monotonic()

    def _has_news(self, owned: OwnedPartition) -> bool:
        offsets = {topic: value.offset for (topic, _), value in owned.offsets().items()}
        return bool(owned.outbox) or offsets != owned.committed

    def _store(self, owned: OwnedPartition, until: float) -> None:
        """Store sealed episodes, some at a time; revisions of the same episode one after the other.

        Raises:
            Unavailable: some could not be stored. They wait; what was stored is kept.
        """
        outbox = owned.outbox
        while outbox.sealed and self._clock.monotonic() < until:
            wave = _distinct(outbox.sealed[:WAVE])
            results = store_wave(
                wave,
                owned.emitted,
                owned.committed,
                self._objects,
                self._clock,
                graveyard=self._graveyard,
                pool=self._pool,
            )
            failed = [(s, r) for s, r in zip(wave, results, strict=True) if isinstance(r, InfraError)]
            outbox.sealed[: len(wave)] = [sealed for sealed, _ in failed]
            for result in results:
                if isinstance(result, Stored):
                    owned.keep(result)
            if failed:
                raise failed[0][1]

    def _transact(self, parts: list[OwnedPartition]) -> None:
        """One transaction: announcements, dead letters and offsets of these partition numbers."""
        if not parts:
            return
        announced = [(owned, event) for owned in parts for event in owned.outbox.announcements]
        dead = [(owned, letter) for owned in parts for letter in owned.outbox.dead]
        records = [self._record(owned, event) for owned, event in announced]
        records += [letter.record() for _, letter in dead]
        offsets = {owned.number: owned.offsets() for owned in parts}
        try:
            written = self._ensure_producer().commit(
                records,
                {partition: value for group in offsets.values() for partition, value in group.items()},
                self._consumer.group_metadata(),
            )
        except TransactionAborted:
            telemetry.TRANSACTIONS_ABORTED.inc()
            raise
        except (Unavailable, ProducerFenced):
            # What became of the transaction is not known: begin anew from what is committed.
            self._producer = None
            self._owned.clear()
            raise
        for (owned, event), position in zip(announced, written, strict=False):
            owned.emitted.remember(event, position)
            telemetry.EPISODES_EMITTED.labels(event.closed_by.value).inc()
        for (owned, letter), position in zip(dead, written[len(announced) :], strict=True):
            owned.emitted.remember_dead(letter.origin.topic, letter.origin.offset, position)
            telemetry.DEAD_LETTERS.labels(letter.reason.value).inc()
        for owned in parts:
            owned.committed_now(offsets[owned.number])

    def _record(self, owned: OwnedPartition, event: EpisodeMaterialized) -> OutRecord:
        schema_id = self._registry.id_of(TRAINING_EPISODES, codec.latest(event.record))
        return OutRecord(
            topic=TRAINING_EPISODES,
            key=event.robot_id.encode(),
            value=codec.frame(schema_id, codec.encode(event)),
            partition=owned.number,
        )

    def _tell(self) -> None:
        """Lag, and the age of the oldest open episode, every few seconds."""
        if self._clock.monotonic() - self._told_at < TELL_INTERVAL:
            return
        self._told_at = self._clock.monotonic()
        now_ms = int(self._clock.now().timestamp() * 1000)
        ages = [now_ms - at for owned in self._owned.values() if (at := owned.oldest_ms()) is not None]
        telemetry.OLDEST_EPISODE_SECONDS.set(max(ages, default=0) / 1000)
        telemetry.SPILL_BYTES.set(self._spill.nbytes())
        telemetry.set_lags(self._consumer.lags())

    def _back_off(self, error: Exception) -> None:
        pause = self._backoff.failed()
        self._health.set_ready(False, str(error))
        telemetry.UNAVAILABLE.labels(type(error).__name__).inc()
        _log.warning("materializer_waits", error=str(error), kind=type(error).__name__, retry_in=pause)

    def _go_on(self) -> None:
        self._health.set_ready(bool(self._owned), "no partition number is owned")
        if self._backoff.succeeded():
            _log.info("materializer_goes_on")
        if self._standing_by and not self._unstored():
            self._standing_by = False
            self._consumer.resume(sorted(self._consumer.assigned))


def run(settings: Settings, stop: threading.Event, health: Health | None = None) -> None:
    """Materialize until `stop` is set.

    Raises:
        OffsetsExpired: records were deleted before they were read.
    """
    materializer = Materializer(settings, health=health)
    settle_heap()
    _log.info("materializer_started", group=settings.materializer.group)
    try:
        while not stop.is_set():
            materializer.turn()
    finally:
        materializer.close()
        _log.info("materializer_stopped")


def _distinct(sealed: Iterable[Sealed]) -> list[Sealed]:
    """The longest beginning in which no episode comes twice."""
    wave: list[Sealed] = []
    seen: set[str] = set()
    for item in sealed:
        if item.episode.episode_id in seen:
            break
        seen.add(item.episode.episode_id)
        wave.append(item)
    return wave
