"""Emulated robots at the wire: Avro by fastavro, the Confluent frame by hand, a plain idempotent producer."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import fastavro
from confluent_kafka import KafkaError, Message, Producer

from tests.chaos.ledger import Ledger
from tests.chaos.poison import SPOILERS
from tests.chaos.robot import Event

TOPICS = ("robot-steps", "robot-interventions", "robot-episodes", "episode-labels")
"""What the materializer reads."""
OTHER = {"robot-steps": "robot-episodes"}
"""Topic to the one whose schema a record is falsely marked with; else robot-steps'."""


class Schemas:
    """What the registry knows, fetched once: ids and schemas by topic."""

    def __init__(self, registry_url: str) -> None:
        self._found: dict[str, tuple[int, Any]] = {}
        for topic in (*TOPICS, "training-episodes"):
            url = f"{registry_url}/subjects/{topic}-value/versions/latest"
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the local stack
                found = json.load(answer)
            self._found[topic] = int(found["id"]), fastavro.parse_schema(json.loads(found["schema"]))

    def encode(self, topic: str, datum: Mapping[str, Any]) -> bytes:
        """A framed record of a topic."""
        number, schema = self._found[topic]
        out = io.BytesIO()
        out.write(b"\0" + number.to_bytes(4, "big"))
        fastavro.schemaless_writer(out, schema, datum)
        return out.getvalue()

    def of_another(self, topic: str, value: bytes) -> bytes:
        """A framed record that names the schema of another topic's record."""
        number, _ = self._found[OTHER.get(topic, "robot-steps")]
        return value[:1] + number.to_bytes(4, "big") + value[5:]

    def decode(self, topic: str, value: bytes) -> dict[str, Any]:
        """The datum of a framed record; there is one version of every schema here."""
        found = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._found[topic][1], None)
        assert isinstance(found, dict)
        return found


class Wire:
    """Sends events and tells the ledger what the broker acknowledged."""

    def __init__(self, bootstrap: str, schemas: Schemas) -> None:
        self._schemas = schemas
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "chaos-robots",
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",
                "partitioner": "murmur2_random",
                "message.max.bytes": 1_048_588,
                "linger.ms": 20,
                "message.timeout.ms": 300_000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,
            }
        )

    def send(self, events: Iterable[Event], ledger: Ledger) -> None:
        """Queue events in order."""
        for event in events:
            value: bytes | None = self._schemas.encode(event.topic, event.datum)
            if event.spoil == "other-schema":
                value = self._schemas.of_another(event.topic, value or b"")
            elif event.spoil:
                value = SPOILERS[event.spoil](value or b"")
            report = partial(_report, ledger, event, value)
            while True:
                try:
                    self._producer.produce(event.topic, value, event.key, on_delivery=report)
                except BufferError:
                    self._producer.poll(0.1)
                else:
                    break
            self._producer.poll(0)

    def flush(self, timeout: float) -> int:
        """Wait for reports; how many are missing."""
        return int(self._producer.flush(timeout))


def _report(ledger: Ledger, event: Event, value: bytes | None, error: KafkaError | None, message: Message) -> None:
    offset, partition, topic = message.offset(), message.partition(), message.topic()
    if error is not None or offset is None or partition is None or topic is None:
        ledger.failed(event, error.str() if error else "no place")
    else:
        ledger.acknowledged(event, value, (topic, partition, offset), message.timestamp()[1])
