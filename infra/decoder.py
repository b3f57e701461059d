"""From the value of a Kafka record to an event: frame, schema, Avro."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from schemas import codec
from schemas.codec import AvroSchema
from schemas.events import Event

E = TypeVar("E", bound=Event)

SchemaLookup = Callable[[int, str], AvroSchema]
"""`(schema id, record name) -> schema`, as `infra.registry.Registry.schema_of` has it; raises what that raises."""


def event_in(value: object, event_type: type[E], schema_of: SchemaLookup) -> E:
    """The event in a record's value, whatever version of its schema it was written with.

    Args:
        value: what `Message.value()` gave; anything but bytes is no event.
        event_type: what it should be.
        schema_of: finds the schema that it was written with.

    Raises:
        SchemaError: it holds no such event.
        RegistryUnavailable: the schema could not be looked up.
    """
    schema_id, body = codec.unframe(value if isinstance(value, bytes) else None)
    return codec.decode(event_type, body, schema_of(schema_id, event_type.record))
