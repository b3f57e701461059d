"""What a signature covers: an event's Avro body as it was sent, with the signature itself taken out.

    message = b"sop signature 1\\0" + sha256(canonical form of the writer's schema) + body with `signature` null

The writer's schema is bound in (Avro's Parsing Canonical Form, which names the record), so that the same bytes
under another schema id are not the same message. Who verifies needs the body and the writer's schema, never its
own newer schema: fields that it does not know stay covered.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import fastavro
import fastavro.schema

from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import UndecodableEvent
from schemas.events import SignedEvent

_PREFIX = b"sop signature 1\0"
_FIELD = "signature"


def message_of(body: bytes, writer: AvroSchema) -> bytes:
    """The bytes that a signature in `body` is about.

    Raises:
        UndecodableEvent: the schema has no signature, the body does not follow it, or it is encoded in a way that
            our writers do not use (so that "the bytes as sent" would be open to interpretation).
    """
    if _FIELD not in {field["name"] for field in writer.parsed["fields"]}:
        raise UndecodableEvent(f"{writer.parsed['name']} carries no signature")
    try:
        datum: dict[str, Any] = fastavro.schemaless_reader(io.BytesIO(body), writer.parsed, None)  # type: ignore[assignment]
    except Exception as error:
        raise UndecodableEvent(f"not a {writer.parsed['name']}: {error!r}") from error
    if _written(datum, writer) != body:
        raise UndecodableEvent("encoded in an unusual way; signatures cover one encoding only")
    canonical = fastavro.schema.to_parsing_canonical_form(writer.parsed)
    return _PREFIX + hashlib.sha256(canonical.encode()).digest() + _written({**datum, _FIELD: None}, writer)


def message_to_sign(event: SignedEvent) -> bytes:
    """What to sign of an event that is about to be sent; its `key_id` is covered, so set that first."""
    return message_of(codec.encode(event), codec.latest(event.record))


def _written(datum: dict[str, Any], writer: AvroSchema) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, writer.parsed, datum)
    return out.getvalue()
