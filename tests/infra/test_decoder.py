from __future__ import annotations

import pytest

from infra.decoder import event_in
from infra.errors import RegistryUnavailable
from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import UndecodableEvent, UnknownSchema
from schemas.events import Heartbeat, PolicyVersion
from tests.producers.fakes import announcement

EVENT = announcement(1, b"weights")
VALUE = codec.frame(7, codec.encode(EVENT))


def schema_of(schema_id: int, record: str) -> AvroSchema:
    if (schema_id, record) != (7, PolicyVersion.record):
        raise UnknownSchema(f"{schema_id} is no {record}")
    return codec.latest(record)


def test_an_event_comes_back_as_it_was_framed() -> None:
    assert event_in(VALUE, PolicyVersion, schema_of) == EVENT


@pytest.mark.parametrize("value", [None, "text", b"", VALUE[:5], VALUE[:-1]])
def test_what_is_no_event_is_undecodable(value: object) -> None:
    with pytest.raises(UndecodableEvent):
        event_in(value, PolicyVersion, schema_of)


def test_another_record_s_schema_or_an_unknown_one_is_told() -> None:
    for value, event_type in ((VALUE, Heartbeat), (codec.frame(8, codec.encode(EVENT)), PolicyVersion)):
        with pytest.raises(UnknownSchema):
            event_in(value, event_type, schema_of)


def test_an_outage_of_the_registry_passes_through() -> None:
    def away(_schema_id: int, _record: str) -> AvroSchema:
        raise RegistryUnavailable("away")

    with pytest.raises(RegistryUnavailable):
        event_in(VALUE, PolicyVersion, away)
