"""`sop index`: the committed topics → ClickHouse.

Rows are inserted at least once; the tables keep one of each. So offsets are committed after the insert, outside of
any transaction, and neither materializing nor learning waits for ClickHouse.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

import structlog

from consumers.burial import Burial
from consumers.dead_letters import DeadLetter, Reason
from consumers.records import origin
from consumers.rows import TableRow, columns_of, rows_of_message
from infra import telemetry
from infra.backoff import Backoff
from infra.clickhouse.client import ClickHouseError, Client, connect, unavailable_as_ours
from infra.clickhouse.inserting import insert_rows
from infra.clickhouse.summing import sum_days
from infra.clock import Clock, SystemClock
from infra.errors import InfraError, RowsRefused, Unavailable
from infra.health import Health
from infra.kafka import CommittedOffset, EventProducer, GroupConsumer, Message, Partition
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.topics import DEAD_LETTERS, INDEX_TOPICS

_log = structlog.get_logger(__name__)


LAG_SECONDS = 5.0
"""Between two looks at how far behind the group is."""
SUMS_SECONDS = 60.0
"""Between two looks for days to sum."""


@dataclass
class _Batch:
    """Records whose rows wait for their insert, and what to commit after it."""

    rows: list[tuple[TableRow, Message]] = field(default_factory=list)
    offsets: dict[Partition, int] = field(default_factory=dict)
    burial: Burial = field(default_factory=Burial)
    since: float = 0.0


class Indexer:
    """One member of the index's group. `turn` does a bounded amount of work; `close` leaves the group."""

    def __init__(self, settings: Settings, clock: Clock | None = None, health: Health | None = None) -> None:
        self._settings = settings
        self._health = health or Health()
        self._lag_told_at = float("-inf")
        self._clock = clock or SystemClock()
        self._registry = Registry(settings.registry)
        self._client: Client | None = None
        self._dead = EventProducer(settings.kafka, "index-dead-letters")
        self._consumer = GroupConsumer(settings.kafka, settings.index.group, INDEX_TOPICS)
        self._backoff = Backoff(self._clock)
        self._backlog: list[Message] = []
        self._batch = _Batch()

    def turn(self) -> None:
        """One round of the loop.

        Raises:
            OffsetsExpired: records were deleted before they were read.
            DeploymentConflict: tables are missing or not ours to write.
        """
        self._health.beat()
        try:
            if (remaining := self._backoff.remaining()) > 0:
                self._consumer.pause(sorted(self._consumer.assigned))
                self._backlog += self._consumer.consume(1, min(0.2, remaining))
                return
            self._tell_lag()
            self._backlog += self._consumer.consume(self._settings.index.batch_size, 0.1)
            self._decode()
            self._flush_if_due()
        except Unavailable as error:
            pause = self._backoff.failed()
            telemetry.UNAVAILABLE.labels(type(error).__name__).inc()
            self._health.set_ready(False, str(error))
            _log.warning("index_waits", error=str(error), kind=type(error).__name__, retry_in=pause)
        else:
            self._health.set_ready(bool(self._consumer.assigned), "no partition is assigned to this member")
            if self._backoff.succeeded():
                self._consumer.resume(sorted(self._consumer.assigned))
                _log.info("index_goes_on")

    def close(self) -> None:
        """Leave the group. What was not committed is inserted again by whoever comes next."""
        if self._client is not None:
            self._client.close()
        self._consumer.close()

    def _tell_lag(self) -> None:
        now = self._clock.monotonic()
        if now - self._lag_told_at >= LAG_SECONDS:
            telemetry.set_lags(self._consumer.lags())
            self._lag_told_at = now

    def _decode(self) -> None:
        """Turn records into rows. A record leaves the backlog only once that was settled."""
        batch = self._batch
        while self._backlog:
            message = self._backlog[0]
            partition = (str(message.topic()), int(message.partition() or 0))
            if not batch.offsets:
                batch.since = self._clock.monotonic()
            try:
                batch.rows += [(row, message) for row in rows_of_message(message, self._registry)]
            except (SchemaError, KeyError, ValueError, TypeError) as error:
                self._bury(message, Reason.UNDECODABLE, error)
            batch.offsets[partition] = int(message.offset() or 0) + 1
            del self._backlog[0]

    def _flush_if_due(self) -> None:
        batch, limits = self._batch, self._settings.index
        waited = self._clock.monotonic() - batch.since
        if not batch.offsets or (len(batch.rows) < limits.batch_size and waited < limits.flush_interval):
            return
        by_table: dict[str, list[tuple[TableRow, Message]]] = defaultdict(list)
        for row, message in batch.rows:
            by_table[row.table].append((row, message))
        for table, found in by_table.items():
            self._insert(table, found)
        batch.burial.settle(self._dead, self._settings.kafka.request_timeout)
        assigned = self._consumer.assigned
        self._consumer.commit({p: CommittedOffset(at) for p, at in batch.offsets.items() if p in assigned})
        self._batch = _Batch()

    def _insert(self, table: str, found: list[tuple[TableRow, Message]]) -> None:
        """Insert rows of one table; if ClickHouse refuses them, find the one that it refuses."""
        try:
            self._insert_rows(table, [row for row, _ in found])
        except RowsRefused as error:
            if len(found) == 1:
                self._bury(found[0][1], Reason.NOT_INDEXABLE, error)
                return
            half = len(found) // 2
            self._insert(table, found[:half])
            self._insert(table, found[half:])

    def _insert_rows(self, table: str, rows: list[TableRow]) -> None:
        if self._client is None:
            self._client = connect(self._settings.clickhouse)
        values = [list(row.values.values()) for row in rows]
        insert_rows(self._client, self._settings.clickhouse, table, columns_of(rows), values)
        telemetry.ROWS_INSERTED.labels(table).inc(len(rows))

    def _bury(self, message: Message, reason: Reason, error: Exception) -> None:
        """A record that no table can hold. It is not lost: dead-letters keeps it, and says why."""
        letter = DeadLetter(origin(message), reason, f"{type(error).__name__}: {error}")
        known_there = letter.origin.topic == DEAD_LETTERS
        if known_there or self._batch.burial.add(letter):
            _log.warning("dead_letter", reason=reason.value, error=letter.error, topic=letter.origin.topic)


class DaySums:
    """Keeps the sums of past days at hand. What goes wrong is told, and tried again: no answer depends on it."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings.clickhouse, clock
        self._due = clock.monotonic() + SUMS_SECONDS

    def turn(self) -> None:
        """Sum a month of days at most, if it is time."""
        if self._clock.monotonic() < self._due:
            return
        summed = 0
        try:
            with unavailable_as_ours(self._settings):
                client = connect(self._settings)
                try:
                    summed = sum_days(client)
                finally:
                    client.close()
        except (ClickHouseError, InfraError) as error:
            _log.warning("days_not_summed", error=str(error))
        # There may be more of them: a table that was filled anew has years.
        self._due = self._clock.monotonic() + (0.0 if summed else SUMS_SECONDS)


def run(settings: Settings, stop: threading.Event, health: Health | None = None) -> None:
    """Index until `stop` is set, and tell `health` how it goes.

    Raises:
        OffsetsExpired: records were deleted before they were read.
        DeploymentConflict: tables are missing or not ours to write.
    """
    indexer, sums = Indexer(settings, health=health), DaySums(settings, SystemClock())
    _log.info("index_started", group=settings.index.group)
    try:
        while not stop.is_set():
            indexer.turn()
            sums.turn()
    finally:
        indexer.close()
        _log.info("index_stopped")
