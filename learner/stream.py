"""Events of a topic in the order of its partitions, from offsets that we keep ourselves (in the checkpoint)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import structlog

from infra.backoff import FIRST_PAUSE
from infra.errors import KafkaUnavailable
from infra.kafka import LogReader, Message
from infra.kafka.config import Partition
from infra.kafka.log_reader import BEGINNING
from infra.registry import Registry
from infra.settings import KafkaSettings
from infra.telemetry import RECORDS_CONSUMED, RECORDS_PASSED_OVER, UNAVAILABLE
from learner.patience import Patience
from learner.wire import Decoder
from schemas.errors import SchemaError
from schemas.events import EpisodeMaterialized, Event

E = TypeVar("E", bound=Event)
T = TypeVar("T")

_BATCH = 1_000
_CATCH_UP_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event and where it lies; `appended_at` is the broker's time, aware UTC."""

    event: E
    partition: int
    offset: int
    appended_at: datetime


class Announcements(Protocol):
    """Where announced episodes come from."""

    @property
    def positions(self) -> dict[int, int]:
        """Next offset by partition, of those where anything was read."""
        ...

    def seek(self, positions: Mapping[int, int] | None = None) -> None:
        """Read on from these offsets."""
        ...

    def poll(self, timeout: float) -> list[Received[EpisodeMaterialized]]:
        """What arrived, waiting at most `timeout` seconds."""
        ...


class EventStream(Generic[E]):
    """Follows all partitions of one topic and sees committed records only.

    What cannot be decoded is logged, counted and passed over. Raises OffsetsExpired when retention was faster.
    """

    def __init__(
        self, kafka: KafkaSettings, registry: Registry, topic: str, event_type: type[E], patience: Patience
    ) -> None:
        self.topic = topic
        self._patience = patience
        self._decoder = Decoder(registry, event_type, patience)
        self._reader = LogReader(kafka, f"learner-{topic}")
        self._positions: dict[int, int] = {}
        self._idle = True

    @property
    def positions(self) -> dict[int, int]:
        """Next offset by partition, of those where anything was read, or whose end was reached."""
        return {partition: offset for partition, offset in self._positions.items() if offset != BEGINNING}

    def seek(self, positions: Mapping[int, int] | None = None) -> None:
        """Read on from these offsets; partitions that are not named from their beginning."""
        found = self._call(lambda: self._reader.partitions(self.topic))
        self._positions = {number: (positions or {}).get(number, BEGINNING) for _, number in found}
        self._assign()

    def poll(self, timeout: float) -> list[Received[E]]:
        """What arrived, waiting at most `timeout` seconds; empty, after a pause, while Kafka does not answer."""
        self._patience.check()
        try:
            messages = self._reader.consume(_BATCH, timeout)
        except KafkaUnavailable as error:
            UNAVAILABLE.labels("Kafka").inc()
            _log.warning("waiting_for_server", server="Kafka", error=str(error), retry_in=FIRST_PAUSE)
            self._patience.pause(FIRST_PAUSE)
            self._assign()  # what the failed call had taken is read again
            return []
        received = list(self._decode(messages))
        self._pass_marks()
        return received

    def read_to_end(self) -> list[Received[E]]:
        """Everything from the beginning to what is the end now; waits while Kafka does not answer."""
        return [item for batch in self.batches_to_end() for item in batch]

    def batches_to_end(self) -> Iterator[list[Received[E]]]:
        """The same, of which no more than a batch is in memory at once."""
        reading: Iterator[Message] | None = None
        offsets: dict[Partition, int] = {}

        def read() -> list[Message]:
            nonlocal reading
            if reading is None:  # for the first time, or again after a failure, from behind what was given away
                asked = {place: offsets.get(place, BEGINNING) for place in self._reader.partitions(self.topic)}
                reading = self._reader.read_to_end(asked, _CATCH_UP_SECONDS)
            try:
                return list(itertools.islice(reading, _BATCH))
            except KafkaUnavailable:
                reading = None
                raise

        while messages := self._call(read):
            for message in messages:
                offsets[self.topic, int(message.partition() or 0)] = int(message.offset() or 0) + 1
            yield list(self._decode(messages))
        self._pass_marks()

    def begins_at_its_beginning(self) -> bool:
        """Whether retention has taken nothing: every partition still begins at offset 0."""

        def look() -> bool:
            return all(self._reader.bounds(place)[0] == 0 for place in self._reader.partitions(self.topic))

        return self._call(look)

    def close(self) -> None:
        """Let go of the connection, unless a call that was cut off by a stop still uses it."""
        if self._idle:
            self._reader.close()

    def _call(self, action: Callable[[], T]) -> T:
        self._idle = False
        result = self._patience.call("Kafka", action)
        self._idle = True
        return result

    def _pass_marks(self) -> None:
        # Behind the last record lie its transaction's marks. Once retention has taken them, too, the offset after
        # the last record is none that Kafka would read from.
        for (_, partition), end in self._reader.ends.items():
            self._positions[partition] = max(self._positions.get(partition, end), end)

    def _assign(self) -> None:
        self._reader.assign({(self.topic, number): offset for number, offset in self._positions.items()})

    def _decode(self, messages: list[Message]) -> Iterator[Received[E]]:
        RECORDS_CONSUMED.labels(self.topic).inc(len(messages))
        for message in messages:
            partition, offset = int(message.partition() or 0), int(message.offset() or 0)
            try:
                event = self._decoder.decode(message.value())
            except SchemaError as error:
                RECORDS_PASSED_OVER.labels(self.topic).inc()
                _log.error(
                    "record_passed_over", topic=self.topic, partition=partition, offset=offset, error=str(error)
                )
            else:
                appended_at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
                yield Received(event, partition, offset, appended_at)
            self._positions[partition] = offset + 1
