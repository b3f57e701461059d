"""Events to Avro bytes and back, and the Confluent frame around them (magic byte 0, 4-byte schema id).

A body is always written with the newest schema of its record and read with the writer's, so that robots
and consumers of different ages understand each other.
"""

from __future__ import annotations

import functools
import io
import json
import re
import struct
from pathlib import Path
from typing import Any, TypeVar

import fastavro
from pydantic import BaseModel, ValidationError

from schemas.errors import UndecodableEvent
from schemas.events import EVENTS, Event

AVRO_DIR = Path(__file__).parent / "avro"
_FRAME = struct.Struct(">bI")
FRAME_BYTES = _FRAME.size

E = TypeVar("E", bound=Event)

_PLAIN = {str, int, float, bool, bytes, type(None)}


class AvroSchema:
    """One version of a record's schema: its text as registered, and parsed for reading and writing."""

    def __init__(self, record: str, version: int, text: str) -> None:
        self.record = record
        self.version = version
        self.text = text
        self.parsed: Any = fastavro.parse_schema(json.loads(text))

    def __repr__(self) -> str:
        return f"AvroSchema({self.record} v{self.version})"


@functools.cache
def versions(record: str) -> tuple[AvroSchema, ...]:
    """Every version of a record's schema, oldest first.

    Raises:
        KeyError: no record has this name.
    """
    found = []
    for path in AVRO_DIR.glob(f"{record}.v*.avsc"):
        match = re.fullmatch(rf"{re.escape(record)}\.v(\d+)", path.stem)
        if match:
            text = json.dumps(json.loads(path.read_text()), separators=(",", ":"))
            found.append(AvroSchema(record, int(match[1]), text))
    if not found:
        raise KeyError(f"no schema for record {record!r} in {AVRO_DIR.name}/")
    return tuple(sorted(found, key=lambda schema: schema.version))


def latest(record: str) -> AvroSchema:
    """The version that bodies are written with."""
    return versions(record)[-1]


def encode(event: Event) -> bytes:
    """Avro body of an event, written with the newest schema of its record; no frame."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, latest(event.record).parsed, _plain(event))
    return out.getvalue()


def decode(event_type: type[E], body: bytes, writer: AvroSchema | None = None) -> E:
    """Read an Avro body that was written with `writer` (by default the newest schema).

    Raises:
        UndecodableEvent: the bytes do not follow the schema, or the values do not make an event.
    """
    reader = latest(event_type.record)
    writer = writer or reader
    source = io.BytesIO(body)
    try:
        # A union's branch is told apart by its fields (pydantic, extra="forbid"), so no record names are needed.
        datum = fastavro.schemaless_reader(source, writer.parsed, reader.parsed if writer is not reader else None)
    except Exception as error:
        raise UndecodableEvent(f"not a {writer.record} v{writer.version}: {error!r}") from error
    if source.tell() != len(body):
        raise UndecodableEvent(f"{len(body) - source.tell()} bytes too many for a {writer.record}")
    try:
        return event_type.model_validate(datum)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UndecodableEvent(f"{event_type.record}.{where}: {first['msg']}") from error


def frame(schema_id: int, body: bytes) -> bytes:
    """Put the Confluent frame in front of an Avro body."""
    return _FRAME.pack(0, schema_id) + body


def unframe(value: bytes | None) -> tuple[int, bytes]:
    """Schema id and Avro body of a Kafka record's value.

    Raises:
        UndecodableEvent: there is no value, or it does not begin with a frame.
    """
    if value is None or len(value) < FRAME_BYTES:
        raise UndecodableEvent("too short for a schema id")
    magic, schema_id = _FRAME.unpack_from(value)
    if magic != 0:
        raise UndecodableEvent(f"first byte is {magic}, not 0: no schema id")
    return schema_id, value[FRAME_BYTES:]


def event_type(record: str) -> type[Event]:
    """The class of a record's events.

    Raises:
        KeyError: no record has this name.
    """
    return EVENTS[record]


def _plain(value: object) -> Any:
    """What fastavro writes: models as dicts (nested ones tagged, so that a union finds its branch)."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, BaseModel):
        fields = {name: _plain(item) for name, item in value.__dict__.items()}
        return {"-type": f"sop.{type(value).__name__}", **fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
