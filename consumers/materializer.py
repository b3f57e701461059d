"""`sop materialize`: robot topics → Parquet payloads on S3 → training-episodes, exactly once.

One turn of the loop: consume a batch, follow the group's assignment, fold the batch, let time pass, store what
was sealed, commit it. Payloads are stored first; announcements, dead letters and offsets then go into one Kafka
transaction, which is the commit. A turn has one deadline, so that the group is served in time. Where a server does
not answer, the partitions that need it are paused, the membership is kept alive, and the same work is tried again
with growing pauses; nothing in memory is thrown away for it.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from consumers.assembly import Outcome
from consumers.broker_time import ms_of
from consumers.committer import Committer, OutcomeUnknown
from consumers.decode import decode
from consumers.gaps import gaps, skipped
from consumers.gauges import Gauges
from consumers.holds import Holds
from consumers.intake import Intake
from consumers.partition import OwnedPartition
from consumers.servers import Servers
from consumers.spill_folder import SpillFolder
from consumers.storekeeper import UPLOADS, Storekeeper
from consumers.storing import CannotStore
from consumers.takeover import take_over
from infra import telemetry
from infra.backoff import Backoff
from infra.clock import Clock, SystemClock
from infra.errors import (
    DiskFull,
    KafkaUnavailable,
    ProducerFenced,
    SpillUnusable,
    TransactionAborted,
    Unavailable,
)
from infra.health import Health
from infra.heap import settle_heap
from infra.kafka import Partition
from infra.settings import Settings
from schemas.topics import EPISODE_TOPICS, ROBOT_TOPICS

_log = structlog.get_logger(__name__)

TURN_SECONDS = 20.0
"""When a turn begins nothing more that may take long. What it is at (16 episodes looked up and stored, one
transaction, one take-over) is finished: the poll interval is 300 s, and a loop counts as stalled after 180 s."""
ATTEND_SECONDS = 5.0
"""Between looks at the group while a long history is read."""
ABORTS = 2
"""Transactions of all partition numbers that fail in a row before each has one of its own."""
INTAKE = 4_000
"""Records that exist as Kafka's objects at the same time: 2 MB, which stay in the processor's caches."""
BATCH_BYTES = 64 * 2**20
"""Bytes of records after which a batch is full, whatever their number; Kafka's client holds as many more."""


class Materializer:
    """One member of the group. `turn` does a bounded amount of work; `close` leaves the group."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        health: Health | None = None,
        servers: Servers | None = None,
    ) -> None:
        self._health = health or Health()
        self._settings = settings.materializer
        self._clock = clock or SystemClock()
        self._spill = SpillFolder(self._settings.spill_dir)
        self._servers = servers or Servers.connect(settings)
        self._consumer = self._servers.consumer
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        self._keeper = Storekeeper(
            self._servers.objects, self._servers.graveyard, self._clock, self._pool, self._health.beat
        )
        self._committer = Committer(self._consumer, self._servers.registry, self._servers.begin)
        self._gauges = Gauges(self._clock, self._consumer, self._spill)
        self._owned: dict[int, OwnedPartition] = {}
        self._backlog = Intake()
        self._holds = Holds(self._clock)
        self._behind: set[int] = set()
        self._paused: set[Partition] = set()
        self._aborts = 0
        self._committed_at = self._attended_at = self._clock.monotonic()
        self._backoff = Backoff(self._clock)
        self._kafka_answers = True

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
        except (SpillUnusable, OutcomeUnknown) as error:
            self._owned.clear()  # what was on disk, or may be committed already, is read again from Kafka
            self._back_off(error)
        except (Unavailable, TransactionAborted, ProducerFenced) as error:
            self._back_off(error)
        else:
            self._go_on()
        finally:
            paused = self._paused & self._consumer.assigned
            self._gauges.tell(self._owned, len(self._holds), paused, kafka_answers=self._kafka_answers)

    def _work(self) -> None:
        until = self._clock.monotonic() + TURN_SECONDS
        full = self._make_room()
        self._take_in(full=full is not None)
        self._committer.prepare()
        self._follow_assignment(until)
        self._fold()
        full = full or self._make_room()
        self._commit(self._settle(until), until)
        if full is not None:  # what is here was still sealed and committed, which may free what it takes on disk
            raise full

    def close(self) -> None:
        """Leave the group. What was not committed is read again by whoever comes next."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._servers.close()
        self._spill.close()

    def _take_in(self, *, full: bool) -> None:
        """Consume, but of no partition number that cannot go on; of none at all if there is no room."""
        if self._backlog:
            return  # it could not be decoded yet, or came while nothing should
        assigned = self._consumer.assigned
        still = {p for p in assigned if full or p[1] in self._behind or p[1] in self._holds}
        self._pause(still)
        if still and still == assigned:
            self._consume(1, 0.01)
        else:
            self._consume(self._settings.batch_size, self._patience())

    def _patience(self) -> float:
        """Seconds to wait for records: what is ready to be committed does not wait for them."""
        if not any(owned.outbox for number, owned in self._owned.items() if number not in self._holds):
            return self._settings.poll_timeout
        due_in = self._settings.commit_interval - (self._clock.monotonic() - self._committed_at)
        return min(self._settings.poll_timeout, max(0.01, due_in))

    def _stand_by(self, timeout: float) -> None:
        """Keep the membership while no more can be taken in: serve the group, and take what is on its way."""
        self._pause(set(self._consumer.assigned))
        self._consume(1, timeout)

    def _pause(self, still: set[Partition]) -> None:
        """Deliver nothing of these until it is said otherwise, and the others again."""
        if still:
            self._consumer.pause(sorted(still))
        if again := sorted((self._paused - still) & self._consumer.assigned):
            self._consumer.resume(again)
        self._paused = still

    def _consume(self, count: int, timeout: float) -> None:
        """Take at most `count` records in; those that are here already come at once, some at a time."""
        self._attended_at = self._clock.monotonic()
        while count > 0:  # once at least: only that serves the group
            found = self._consumer.consume(min(count, INTAKE), timeout)
            self._backlog.add(found)
            count -= len(found)
            if len(found) < INTAKE or self._backlog.nbytes >= BATCH_BYTES:
                return
            timeout = 0.0

    def _follow_assignment(self, until: float) -> None:
        """Drop partition numbers that went away, and take new ones over once all topics are here."""
        self._drop_lost()
        while new := sorted(n for n in self._complete() - self._owned.keys() if not self._holds.waits(n)):
            taken = self._take_over(new[0])
            self._drop_lost()  # the group may have been served meanwhile, also when it failed
            if not taken or self._clock.monotonic() >= until:
                break  # a server may be away for all of them: one failed attempt a turn
        for number in {number for _, number in self._consumer.assigned} - self._owned.keys():
            self._backlog.drop(number)
        self._holds.keep(self._complete())

    def _take_over(self, number: int) -> bool:
        """Whether a partition number could be taken over; one that could not waits by itself."""
        try:
            self._owned[number] = take_over(
                number,
                self._consumer,
                self._servers.reader,
                self._servers.registry,
                self._settings.episode_timeout,
                attend=self._attend,
            )
        except Unavailable as error:
            self._hold(number, error)
            return False
        # The take-over seeks to the committed offsets: what was delivered before it comes again.
        self._backlog.drop(number)
        self._release(number)
        return True

    def _drop_lost(self) -> None:
        assigned, epochs = self._consumer.assigned, self._consumer.epochs
        for number, owned in list(self._owned.items()):
            if any(p not in assigned or epochs[p] != epoch for p, epoch in owned.epochs.items()):
                del self._owned[number]
                self._backlog.drop(number)

    def _complete(self) -> set[int]:
        assigned = self._consumer.assigned
        return {n for _, n in assigned if all((topic, n) in assigned for topic in EPISODE_TOPICS)}

    def _attend(self) -> None:
        """Something takes long, and moves: say that the loop lives, and serve the group now and then."""
        self._health.beat()
        if self._clock.monotonic() - self._attended_at >= ATTEND_SECONDS:
            self._stand_by(0.0)

    def _fold(self) -> None:
        """Decode the batch as a whole, then fold it in: an outage of the registry leaves nothing half done."""
        self._drop_skipped()
        if not self._backlog:
            return
        with telemetry.STAGE_SECONDS.labels("decode").time():
            batch = decode(self._backlog, self._servers.registry.schema_of)
        with telemetry.STAGE_SECONDS.labels("assemble").time():
            for number, part in batch.items():
                if number in self._owned:  # else it was taken away meanwhile, and is somebody else's to read
                    self._count(self._owned[number].add(part, ms_of(self._clock)))
        telemetry.RECORDS_CONSUMED.labels("robot-*").inc(len(self._backlog))
        self._backlog = Intake()

    def _drop_skipped(self) -> None:
        """Take partition numbers over anew of which the client left records out: they would be committed past."""
        for gap in list(gaps(self._backlog, {n: owned.positions for n, owned in self._owned.items()})):
            number = gap.partition[1]
            if number in self._owned and skipped(gap, self._servers.reader):
                _log.error("records_skipped", partition=gap.partition, expected=gap.expected, found=gap.found)
                telemetry.RECORDS_SKIPPED.inc(gap.found - gap.expected)
                del self._owned[number]
                self._backlog.drop(number)

    def _make_room(self) -> DiskFull | None:
        """Keep the memory of episodes bounded; the error that stands in the way, if one does."""
        episodes = [episode for owned in self._owned.values() for episode in owned.episodes()]
        kept = sum(owned.kept_bytes() for owned in self._owned.values())
        try:
            if self._spill.make_room(episodes, self._settings.max_buffer_bytes, kept):
                _log.info("episodes_spilled", episodes=len(episodes), on_disk=self._spill.nbytes())
        except DiskFull as error:
            return error
        return None

    def _settle(self, until: float) -> list[OwnedPartition]:
        """Look up, let time pass, and store for one partition number after the other; those that got through.

        Those that failed before come last: what fails may take long to do so.
        """
        through = []
        due = self._clock.monotonic() - self._committed_at >= self._settings.commit_interval
        for owned in sorted(self._owned.values(), key=lambda one: one.number in self._holds):
            if self._holds.waits(owned.number):
                continue
            if self._clock.monotonic() >= until:
                break
            self._health.beat()
            try:
                self._keeper.decide(owned, until, self._count)
                self._keeper.apply_labels(owned, until)
                self._let_time_pass(owned)
                if due and owned.outbox.sealed:
                    with telemetry.STAGE_SECONDS.labels("store").time():
                        self._keeper.store(owned, until)
            except (Unavailable, CannotStore) as error:
                self._hold(owned.number, error)
            else:
                through.append(owned)
                if not owned.outbox and self._keeper.is_done(owned):
                    self._release(owned.number)
        self._behind = {n for n, owned in self._owned.items() if due and not self._keeper.is_done(owned)}
        return through

    def _let_time_pass(self, owned: OwnedPartition) -> None:
        """Seal episodes that fell silent. Only if one could be due are the ends of its topics asked for."""
        now_ms = ms_of(self._clock)
        if not owned.is_due(now_ms):
            return
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

    def _commit(self, through: list[OwnedPartition], until: float) -> None:
        """Commit what is stored as a whole; from time to time commit offsets alone."""
        waited = self._clock.monotonic() - self._committed_at
        ready = [owned for owned in through if not owned.unstored()]
        pending = any(owned.outbox for owned in ready)
        if waited < (self._settings.commit_interval if pending else self._settings.offsets_interval):
            return
        with telemetry.STAGE_SECONDS.labels("commit").time():
            self._transact([owned for owned in ready if owned.has_news()], until)
        self._committed_at = self._clock.monotonic()

    def _transact(self, ready: list[OwnedPartition], until: float) -> None:
        """One transaction for all; if that fails again and again, one for each, which finds those to blame."""
        alone = [owned for owned in ready if owned.number in self._holds]
        together = [owned for owned in ready if owned.number not in self._holds]
        try:
            self._committer.commit(together)
            self._aborts = 0
        except TransactionAborted:
            self._aborts += 1
            if self._aborts < ABORTS:
                raise
            alone = [*together, *alone]
        for owned in alone:
            if self._clock.monotonic() >= until:
                return
            try:
                self._committer.commit([owned])
            except TransactionAborted as error:
                self._hold(owned.number, error)
            else:
                self._release(owned.number)

    def _hold(self, number: int, error: Exception) -> None:
        """A partition number cannot go on, for now; the others do."""
        trace = error.__cause__ if isinstance(error, CannotStore) and number not in self._holds else None
        pause = self._holds.failed(number, error)
        telemetry.UNAVAILABLE.labels(type(error).__name__).inc()
        _log.warning(
            "partition_waits",
            number=number,
            error=str(error),
            kind=type(error).__name__,
            retry_in=pause,
            exc_info=trace,
        )

    def _release(self, number: int) -> None:
        if self._holds.over(number):
            _log.info("partition_goes_on", number=number)

    def _back_off(self, error: Exception) -> None:
        pause = self._backoff.failed()
        self._kafka_answers = not isinstance(error, KafkaUnavailable | OutcomeUnknown)
        kind = type(error.__cause__ if isinstance(error, OutcomeUnknown) else error).__name__
        self._health.set_ready(False, str(error))
        telemetry.UNAVAILABLE.labels(kind).inc()
        _log.warning("materializer_waits", error=str(error), kind=kind, retry_in=pause)

    def _go_on(self) -> None:
        self._kafka_answers = True
        trouble = str(self._holds) or ("" if self._owned else "no partition number is owned")
        self._health.set_ready(not trouble, trouble)
        if self._backoff.succeeded():
            _log.info("materializer_goes_on")


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
