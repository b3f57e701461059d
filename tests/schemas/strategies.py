"""Arbitrary events, made from their Avro schemas: whatever the schema lets through, the codec must carry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from schemas import codec
from schemas.events import EVENTS, Event

_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, width=32),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=12),
    "bytes": st.binary(max_size=24),
}
_TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


def values(avro_type: Any, named: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Values of a parsed or plain Avro type, as pydantic takes them."""
    named = {} if named is None else named
    if isinstance(avro_type, list):
        return st.one_of([values(branch, named) for branch in avro_type])
    if isinstance(avro_type, str):
        return _PRIMITIVES[avro_type] if avro_type in _PRIMITIVES else values(named[avro_type], named)
    if avro_type["type"] in ("record", "enum"):
        named[avro_type["name"]] = avro_type
    match avro_type:
        case {"logicalType": "timestamp-micros"}:
            return _TIMES
        case {"type": "array", "items": items}:
            return st.lists(values(items, named), max_size=3)
        case {"type": "enum", "symbols": symbols}:
            return st.sampled_from(symbols)
        case {"type": "record", "fields": fields}:
            return st.fixed_dictionaries({field["name"]: values(field["type"], named) for field in fields})
    raise NotImplementedError(f"events have no {avro_type} yet")


def events_of(record: str) -> st.SearchStrategy[Event]:
    """Events of one record."""
    return values(codec.latest(record).parsed).map(EVENTS[record].model_validate)


def events() -> st.SearchStrategy[Event]:
    """Events of all records."""
    return st.sampled_from(sorted(EVENTS)).flatmap(events_of)
