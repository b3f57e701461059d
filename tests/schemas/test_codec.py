"""The codec carries every event unchanged, and calls everything else undecodable."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import codec
from schemas.errors import UndecodableEvent
from schemas.events import EVENTS, Event, PolicyActivated, Step
from tests.schemas.golden import EXAMPLES
from tests.schemas.strategies import events, events_of

PROPERTY = settings(deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("record", sorted(EVENTS))
def test_every_event_comes_back_as_it_was(record: str) -> None:
    @settings(PROPERTY, max_examples=60)
    @given(events_of(record))
    def carried(event: Event) -> None:
        body = codec.encode(event)
        assert codec.decode(type(event), body) == event
        assert codec.encode(codec.decode(type(event), body)) == body

    carried()


@settings(PROPERTY, max_examples=300)
@given(st.sampled_from(sorted(EVENTS)), st.binary(max_size=200))
def test_arbitrary_bytes_are_an_event_or_undecodable(record: str, body: bytes) -> None:
    _is_event_or_undecodable(EVENTS[record], body)


@settings(PROPERTY, max_examples=400)
@given(st.sampled_from(EXAMPLES), st.data())
def test_damaged_bytes_are_an_event_or_undecodable(stored: Any, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(stored.body)))
    length = data.draw(st.integers(0, 8))
    noise = data.draw(st.binary(max_size=12))
    damaged = stored.body[:start] + noise + stored.body[start + length :]
    _is_event_or_undecodable(type(stored.event), damaged, stored.schema)


@settings(PROPERTY, max_examples=150)
@given(events(), st.sampled_from(sorted(EVENTS)))
def test_a_body_read_as_another_record_is_an_event_or_undecodable(event: Event, other: str) -> None:
    _is_event_or_undecodable(EVENTS[other], codec.encode(event))


@given(st.integers(0, 2**32 - 1), st.binary(max_size=50))
@PROPERTY
def test_unframe_gives_back_what_frame_was_given(schema_id: int, body: bytes) -> None:
    assert codec.unframe(codec.frame(schema_id, body)) == (schema_id, body)


@given(st.none() | st.binary(max_size=50))
@example(b"")
@example(b"\0\0\0\0")
@example(b"\0\0\0\0\0")
@example(b"\x01\0\0\0\x01body")
@PROPERTY
def test_unframe_takes_a_frame_apart_or_calls_it_undecodable(value: bytes | None) -> None:
    try:
        schema_id, body = codec.unframe(value)
    except UndecodableEvent:
        assert value is None or len(value) < codec.FRAME_BYTES or value[0] != 0
    else:
        assert codec.frame(schema_id, body) == value
        assert 0 <= schema_id < 2**32


def test_a_frame_is_a_zero_the_id_in_network_order_and_the_body() -> None:
    assert codec.frame(258, b"body") == b"\x00\x00\x00\x01\x02body"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 2**31),
        ("index", -(2**31) - 1),
        ("sequence", 2**63),
        ("captured_at", datetime(2026, 1, 1)),  # no zone
        ("actor", "SOMEBODY"),
        ("state", "not bytes but text, \ud800"),
        ("surprise", 1),
    ],
)
def test_what_avro_cannot_carry_is_no_event(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Step.model_validate({**_step().model_dump(), field: value})


def test_a_number_beyond_its_avro_type_is_undecodable_although_fastavro_writes_it() -> None:
    too_large = _step().model_copy(update={"index": 2**31})
    with pytest.raises(UndecodableEvent, match=r"step\.index: "):
        codec.decode(Step, codec.encode(too_large))


def test_times_of_other_zones_arrive_in_utc() -> None:
    local = datetime(2026, 3, 14, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    event = PolicyActivated(robot_id="r", boot_epoch=1, policy="p", version=1, sha256="", activated_at=local)
    arrived = codec.decode(PolicyActivated, codec.encode(event)).activated_at
    assert arrived == local
    assert arrived.tzinfo == UTC


def test_nan_and_infinity_are_carried_for_their_reader_to_refuse() -> None:
    broken = _step().model_copy(
        update={"reward": math.nan, "state": struct.pack("<3f", math.inf, -math.inf, math.nan)}
    )
    arrived = codec.decode(Step, codec.encode(broken))
    assert math.isnan(arrived.reward)
    assert arrived.state == broken.state


def test_an_unknown_record_is_named() -> None:
    with pytest.raises(KeyError, match="no schema for record 'nonsense'"):
        codec.versions("nonsense")
    with pytest.raises(KeyError):
        codec.event_type("nonsense")


def _step() -> Step:
    return next(stored.event for stored in EXAMPLES if isinstance(stored.event, Step))


def _is_event_or_undecodable(event_type: type[Event], body: bytes, schema: codec.AvroSchema | None = None) -> None:
    try:
        event = codec.decode(event_type, body, schema)
    except UndecodableEvent:
        return
    assert codec.decode(event_type, codec.encode(event)) == event or "nan" in repr(event)
