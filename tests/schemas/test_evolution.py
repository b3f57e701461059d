"""A reader of today reads whatever an older robot or an older learner wrote."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fastavro
import pytest
from hypothesis import given, settings

from schemas import codec
from schemas.base import Int64
from schemas.codec import AvroSchema
from schemas.errors import UndecodableEvent
from schemas.events import EVENTS, Event
from tests.schemas.strategies import values

SCHEMAS = [schema for record in sorted(EVENTS) for schema in codec.versions(record)]


class Parcel(Event):
    """A made-up event as its third version has it."""

    record: ClassVar[str] = "parcel"
    name: str
    weight: float = 1.5
    label: str | None = None
    count: Int64


V1: list[dict[str, Any]] = [
    {"name": "name", "type": "string", "doc": "."},
    {"name": "obsolete", "type": "bytes", "doc": "."},
    {"name": "count", "type": "int", "doc": "."},
]
V2: list[dict[str, Any]] = [V1[0], V1[1], V1[2], {"name": "weight", "type": "double", "default": 1.5, "doc": "."}]
V3: list[dict[str, Any]] = [
    V1[0],
    V2[3],
    {"name": "label", "type": ["null", "string"], "default": None, "doc": "."},
    {"name": "count", "type": "long", "doc": "."},
]


@pytest.fixture
def parcels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of schemas with three versions of one record."""
    monkeypatch.setattr(codec, "AVRO_DIR", tmp_path)
    codec.versions.cache_clear()
    for version, fields in enumerate((V1, V2, V3), start=1):
        _write(tmp_path, version, fields)
    yield tmp_path
    codec.versions.cache_clear()


def test_a_reader_reads_the_bytes_of_every_writer_version(parcels: Path) -> None:
    first, second, third = codec.versions("parcel")
    with_all = {"name": "crate", "obsolete": b"?", "count": 7, "weight": 80.25, "label": "fragile"}

    assert codec.decode(Parcel, _written(first, with_all), first) == Parcel(name="crate", count=7)
    assert codec.decode(Parcel, _written(second, with_all), second) == Parcel(name="crate", count=7, weight=80.25)
    newest = Parcel(name="crate", count=7, weight=80.25, label="fragile")
    assert codec.decode(Parcel, _written(third, with_all), third) == newest
    assert codec.encode(newest) == _written(third, with_all)


def test_bytes_read_with_the_wrong_version_do_not_pass_as_an_event(parcels: Path) -> None:
    first, _, third = codec.versions("parcel")
    body = _written(first, {"name": "crate", "obsolete": b"?", "count": 7})
    with pytest.raises(UndecodableEvent, match="not a parcel v3"):
        codec.decode(Parcel, body, third)


def test_a_new_field_without_default_makes_older_bytes_undecodable(parcels: Path) -> None:
    _write(parcels, 4, [*V3, {"name": "owner", "type": "string", "doc": "."}])
    codec.versions.cache_clear()
    first = codec.versions("parcel")[0]
    with pytest.raises(UndecodableEvent, match="not a parcel v1"):
        codec.decode(Parcel, _written(first, {"name": "crate", "obsolete": b"?", "count": 7}), first)


def test_versions_are_ordered_by_number_not_by_name(parcels: Path) -> None:
    for version in range(4, 12):
        _write(parcels, version, V3)
    codec.versions.cache_clear()
    assert [schema.version for schema in codec.versions("parcel")] == list(range(1, 12))
    assert codec.latest("parcel").version == 11


@pytest.mark.parametrize("writer", SCHEMAS, ids=repr)
def test_whatever_any_version_writes_the_newest_reads(writer: AvroSchema) -> None:
    @settings(deadline=None, derandomize=True, database=None, max_examples=15)
    @given(values(writer.parsed))
    def read(datum: dict[str, Any]) -> None:
        event = codec.decode(EVENTS[writer.record], _written(writer, datum), writer)
        assert codec.decode(type(event), codec.encode(event)) == event

    read()


@pytest.mark.parametrize("record", sorted(EVENTS))
def test_the_text_that_is_registered_is_the_file_without_white_space(record: str) -> None:
    for schema in codec.versions(record):
        file = codec.AVRO_DIR / f"{record}.v{schema.version}.avsc"
        assert json.loads(schema.text) == json.loads(file.read_text())
        assert "\n" not in schema.text


def _write(folder: Path, version: int, fields: list[dict[str, Any]]) -> None:
    schema = {"type": "record", "name": "Parcel", "namespace": "sop", "doc": ".", "fields": fields}
    (folder / f"parcel.v{version}.avsc").write_text(json.dumps(schema, indent=2))


def _written(schema: AvroSchema, datum: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    known = {field["name"] for field in schema.parsed["fields"]}
    fastavro.schemaless_writer(out, schema.parsed, {k: v for k, v in datum.items() if k in known})
    return out.getvalue()
