"""Events as Kafka carries them: Avro in a Confluent frame, with schemas from the registry."""

from __future__ import annotations

from typing import Generic, TypeVar

from infra.decoder import event_in
from infra.registry import Registry
from learner.patience import Patience
from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import UnknownSchema
from schemas.events import Event

_LOOKS, _LOOK_SECONDS = 15, 2.0

E = TypeVar("E", bound=Event)


class Decoder(Generic[E]):
    """Reads one kind of event, whatever version of its schema it was written with."""

    def __init__(self, registry: Registry, event_type: type[E], patience: Patience) -> None:
        self._registry = registry
        self._event_type = event_type
        self._patience = patience
        self._writers: dict[int, AvroSchema] = {}
        self._unknown: set[int] = set()

    def decode(self, value: bytes | None) -> E:
        """The event in a record's value; waits while the registry is down.

        It waits for a schema that the registry lacks, too, half a minute and once: a replica may not have it yet.

        Raises:
            SchemaError: the bytes are no such event, or that schema did not come.
            Stopped: a stop was asked for.
        """
        return event_in(value, self._event_type, self._schema_of)

    def _schema_of(self, schema_id: int, record: str) -> AvroSchema:
        if schema_id not in self._writers:
            self._writers[schema_id] = self._looked_up(schema_id, record)
        return self._writers[schema_id]

    def _looked_up(self, schema_id: int, record: str) -> AvroSchema:
        def look() -> AvroSchema:
            return self._patience.call("schema registry", lambda: self._registry.schema_of(schema_id, record))

        if schema_id in self._unknown:
            return look()
        try:
            for _ in range(_LOOKS):
                try:
                    return look()
                except UnknownSchema as error:
                    self._unknown.add(schema_id)
                    self._patience.held_up(str(error))
                    self._patience.pause(_LOOK_SECONDS)
            return look()
        finally:
            if schema_id in self._unknown:
                self._patience.held_up("")


class Encoder:
    """Writes the events of one topic with the newest schema of its record."""

    def __init__(self, registry: Registry, topic: str, event_type: type[Event], patience: Patience) -> None:
        """Look the schema's id up; waits while the registry is down.

        Raises:
            UnknownSchema: it was never registered for the topic; `sop deploy` must run.
            Stopped: a stop was asked for.
        """
        schema = codec.latest(event_type.record)
        self._id = patience.call("schema registry", lambda: registry.id_of(topic, schema))

    def encode(self, event: Event) -> bytes:
        """Value of a record."""
        return codec.frame(self._id, codec.encode(event))
