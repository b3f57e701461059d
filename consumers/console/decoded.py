"""A record as a person reads it: by the schema that it names, if the registry knows that one."""

from __future__ import annotations

import io
import json
import struct
import threading
from dataclasses import dataclass
from typing import Any

import fastavro

from infra.errors import RegistryUnavailable
from infra.registry import Registry
from schemas.codec import AvroSchema, unframe
from schemas.errors import SchemaError

_LONGEST_LIST = 64
_VECTORS = {"state", "action", "proposed_action", "final_state"}
"""Fields whose bytes are little-endian float32."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a record holds. `text`: its fields as JSON, empty when there are none. problem: why, in words."""

    schema: str = ""
    text: str = ""
    problem: str = ""
    advice: str = ""


class Reader:
    """Schemas by id; threads take turns."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._guard = threading.Lock()

    def schema(self, schema_id: int) -> AvroSchema:
        """Schema of any of our records.

        Raises:
            UnknownSchema: the registry has none of this id.
            RegistryUnavailable: no answer in time.
        """
        with self._guard:
            return self._registry.written_with(schema_id)


def decoded(value: bytes, reader: Reader) -> Decoded:
    """Read a record's value by the schema that it names. Never raises for what the value holds."""
    try:
        schema_id, body = unframe(value)
        schema = reader.schema(schema_id)
    except RegistryUnavailable as error:
        return Decoded(
            problem=f"The schema registry does not answer: {error}", advice="Load this page again later."
        )
    except SchemaError as error:
        return Decoded(problem=f"{error}.", advice="Its bytes are below.")
    named = f"{schema.record}, schema id {schema_id}"
    source = io.BytesIO(body)
    try:
        found: Any = fastavro.schemaless_reader(source, schema.parsed, None)
    except Exception as error:  # noqa: BLE001 - a dead letter may hold anything
        return Decoded(
            named, problem=f"It is not what its schema says: {error!r:.300}", advice="Its bytes are below."
        )
    rest = len(body) - source.tell()
    return Decoded(
        named,
        text=json.dumps(readable(found), indent=2, ensure_ascii=False),
        problem=f"{rest} bytes follow after the record." if rest else "",
    )


def readable(value: object) -> Any:
    """A decoded value as JSON can have it; long lists are cut, and say so."""
    if isinstance(value, dict):
        return {str(name): _vector(part) if name in _VECTORS else readable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        shown = [readable(part) for part in value[:_LONGEST_LIST]]
        return [*shown, f"… {len(value) - _LONGEST_LIST} more"] if len(value) > _LONGEST_LIST else shown
    if isinstance(value, bytes):
        return value[:_LONGEST_LIST].hex() + ("…" if len(value) > _LONGEST_LIST else "")
    if isinstance(value, float | int | str | bool) or value is None:
        return value if not isinstance(value, float) or value == value else "NaN"  # noqa: PLR0124
    return str(value)


def _vector(value: object) -> Any:
    if not isinstance(value, bytes) or len(value) % 4:
        return readable(value)
    return readable([round(number, 6) for (number,) in struct.iter_unpack("<f", value)])
