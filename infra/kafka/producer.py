"""A producer for events: idempotent, acknowledged by all replicas, compressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from infra.kafka.config import MESSAGE_BYTES, PARTITIONER, client_config, open_client
from infra.settings import KafkaSettings

Header = tuple[str, bytes]
OnDelivery = Callable[[str | None, int], None]
"""Takes an error or None, and the offset; TOO_LARGE for a record that is larger than client or topic allow."""
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE).str()
OnAppended = Callable[[float], None]
"""Takes when the broker appended the record: unix seconds, by its clock."""


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be written; without a partition its key decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    partition: int = -1


class EventProducer:
    """Writes records in order and at most once per acknowledged send.

    A delivery report says for each record whether it is stored; nothing is retried past
    `delivery_timeout`, so whoever must not lose a record keeps it until its report came.

    Attributes:
        trouble: what the client said last that is wrong with the brokers; None since a record was stored.
    """

    def __init__(
        self, kafka: KafkaSettings, client_id: str, *, linger_ms: int = 5, delivery_timeout: float | None = 120.0
    ) -> None:
        """Connect in the background.

        Args:
            kafka: how to reach the cluster.
            client_id: name in the brokers' logs and ours.
            linger_ms: longest wait for more records of a batch.
            delivery_timeout: seconds; None: for ever, and in order, however long the brokers are away.

        Raises:
            SettingInvalid: see `open_client`.
        """
        self.trouble: str | None = None
        config = client_config(kafka, client_id)
        log = config["error_cb"]

        def went_wrong(error: KafkaError) -> None:
            log(error)
            self.trouble = error.str()

        self._producer = open_client(
            Producer,
            {
                **config,
                "error_cb": went_wrong,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",
                "partitioner": PARTITIONER,
                "message.max.bytes": MESSAGE_BYTES,
                "linger.ms": linger_ms,
                # 0 is for ever; else librdkafka takes none that ends before a batch is closed.
                "delivery.timeout.ms": max(linger_ms + 1, int(delivery_timeout * 1000)) if delivery_timeout else 0,
            },
        )

    def send(
        self, record: OutRecord, on_delivery: OnDelivery | None = None, on_appended: OnAppended | None = None
    ) -> bool:
        """Queue a record; False when the queue is full (call `poll`, then try again).

        `on_delivery(error, offset)` is called from `poll` or `flush`; error is None once the record is stored. It
        is called at once for a record that cannot be sent, such as one that is too large. `on_appended` is called
        before it for a record that is stored on a topic with LogAppendTime.
        """

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.trouble = None
            if on_appended is not None and error is None:
                kind, milliseconds = message.timestamp()
                if kind == TIMESTAMP_LOG_APPEND_TIME:
                    on_appended(milliseconds / 1000)
            if on_delivery is not None:
                offset = message.offset()
                on_delivery(_text(error) if error else None, -1 if offset is None else offset)

        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=record.partition,
                on_delivery=report,
            )
        except BufferError:
            return False
        except KafkaException as error:
            if on_delivery is not None:
                on_delivery(_text(error.args[0]), -1)
        return True

    def poll(self, timeout: float = 0.0) -> None:
        """Serve delivery reports, waiting at most `timeout` seconds for one."""
        self._producer.poll(timeout)

    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` seconds; the number of records that are still on their way."""
        return int(self._producer.flush(timeout))

    def discard(self) -> None:
        """Give up whatever has not left yet; of what is on its way nobody will know."""
        self._producer.purge(blocking=False)

    def __len__(self) -> int:
        return len(self._producer)


def _text(error: KafkaError) -> str:
    return TOO_LARGE if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else error.str()
