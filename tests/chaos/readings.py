"""What is there: the training stream, dead letters, objects and rows, read without the system's own code."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import clickhouse_connect
import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.errors import KafkaUnavailable
from tests.chaos.ledger import Place
from tests.chaos.robot import BUCKET
from tests.chaos.wire import Schemas

OUTPUTS = ("training-episodes", "dead-letters")
PARTITIONS = 4
Offsets = dict[tuple[str, int], int]
T = TypeVar("T")


ATTEMPTS = 12


def patiently(ask: Callable[[], T]) -> T:
    """Ask again while the broker does not answer: it was killed a moment ago, or its coordinator still loads."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(KafkaException, KafkaUnavailable, TimeoutError):
            return ask()
    return ask()


@dataclass
class Announcement:
    """A record of the training stream."""

    partition: int
    offset: int
    datum: dict[str, Any]
    appended_ms: int = 0


@dataclass
class Letter:
    """A record of dead-letters: which record it holds, its bytes, and why it is here."""

    partition: int
    place: Place
    key: bytes | None
    value: bytes | None
    reason: str


@dataclass
class Readings:
    """Everything that a run left behind. `objects` holds digest, size and table by URI."""

    announcements: list[Announcement] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    objects: dict[str, tuple[str, int, pa.Table]] = field(default_factory=dict)
    episode_rows: list[dict[str, Any]] = field(default_factory=list)
    intervention_rows: list[dict[str, Any]] = field(default_factory=list)
    letter_rows: list[dict[str, Any]] = field(default_factory=list)


class Reader:
    """Plain clients of the servers."""

    def __init__(self, environment: dict[str, str], schemas: Schemas) -> None:
        self._environment = environment
        self._schemas = schemas

    def ends(self, topics: tuple[str, ...]) -> Offsets:
        """The offset after the last record, by partition."""

        def ask() -> Offsets:
            consumer = self._consumer("read_uncommitted")
            try:
                places = [(topic, number) for topic in topics for number in range(PARTITIONS)]
                return {p: consumer.get_watermark_offsets(TopicPartition(*p), 10)[1] for p in places}
            finally:
                consumer.close()

        return patiently(ask)

    def lasts(self, topics: tuple[str, ...]) -> Offsets:
        """The offset of the last committed record, by partition that has one; markers of transactions are none."""
        ends = self.ends(topics)
        consumer = self._consumer("read_committed")
        found: Offsets = {}
        try:
            # A marker follows every few records at most; 200 offsets back there is one, or the topic is new.
            pending = {place for place, end in ends.items() if end > 0}
            consumer.assign([TopicPartition(*place, max(0, ends[place] - 200)) for place in pending])
            while pending:
                for message in consumer.consume(1000, 1.0):
                    place = (str(message.topic()), int(message.partition() or 0))
                    error = message.error()
                    if error is None:
                        found[place] = int(message.offset() or 0)
                    elif int(message.offset() or 0) >= ends[place]:
                        pending.discard(place)
        finally:
            consumer.close()
        return found

    def stream(self, starts: Offsets) -> tuple[list[Announcement], list[Letter]]:
        """Committed records of the outputs from `starts` to their ends."""
        ends = self.ends(OUTPUTS)
        pending = {place for place in starts if ends[place] > starts[place]}
        found = Readings()
        consumer = self._consumer("read_committed")
        try:
            consumer.assign([TopicPartition(*place, starts[place]) for place in pending])
            while pending:
                for message in consumer.consume(1000, 1.0):
                    place = (str(message.topic()), int(message.partition() or 0))
                    error = message.error()
                    if error is None:
                        self._take(found, message)
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise RuntimeError(error.str())
                    elif int(message.offset() or 0) >= ends[place]:
                        pending.discard(place)
        finally:
            consumer.close()
        return found.announcements, found.letters

    def put_objects(self, objects: dict[str, bytes]) -> None:
        """Store objects by key, as robots' publishers do."""
        store = self._store()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda item: store.pipe_file(f"{BUCKET}/{item[0]}", item[1]), objects.items()))

    def _store(self) -> Any:
        return s3fs.S3FileSystem(
            key=self._environment["SOP_S3__ACCESS_KEY_ID"],
            secret=self._environment["SOP_S3__SECRET_ACCESS_KEY"],
            endpoint_url=self._environment["SOP_S3__ENDPOINT_URL"],
            client_kwargs={"region_name": self._environment["SOP_S3__REGION"]},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def objects(self, uris: list[str]) -> dict[str, tuple[str, int, pa.Table]]:
        """Payloads that are there, by URI."""
        store = self._store()

        def fetch(uri: str) -> tuple[str, tuple[str, int, pa.Table]] | None:
            try:
                data = store.cat_file(uri)
                table = pq.read_table(pa.BufferReader(data))
            except (OSError, pa.ArrowInvalid):
                return None
            return uri, (hashlib.sha256(data).hexdigest(), len(data), table)

        with ThreadPoolExecutor(4) as pool:
            return dict(item for item in pool.map(fetch, uris) if item)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query, as an analyst sees them."""
        get = self._environment
        client = clickhouse_connect.get_client(
            host=get["SOP_CLICKHOUSE__HOST"],
            port=int(get["SOP_CLICKHOUSE__PORT"]),
            username=get["SOP_CLICKHOUSE__ANALYST_USERNAME"],
            password=get["SOP_CLICKHOUSE__ANALYST_PASSWORD"],
            database=get["SOP_CLICKHOUSE__DATABASE"],
        )
        try:
            return list(client.query(sql, column_formats={"value": "bytes"}).named_results())
        finally:
            client.close()

    def _consumer(self, isolation: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._environment["SOP_KAFKA__BOOTSTRAP_SERVERS"],
                "group.id": f"chaos-reader-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "log_level": 2,
            }
        )

    def _take(self, found: Readings, message: Any) -> None:
        if message.topic() == "training-episodes":
            datum = self._schemas.decode("training-episodes", message.value())
            appended_ms = int(message.timestamp()[1])
            found.announcements.append(Announcement(message.partition(), message.offset(), datum, appended_ms))
            return
        said = {name: (value or b"").decode() for name, value in message.headers() or []}
        place = (said["topic"], int(said["partition"]), int(said["offset"]))
        found.letters.append(Letter(message.partition(), place, message.key(), message.value(), said["reason"]))
