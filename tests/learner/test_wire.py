"""Schemas that a registry does not have yet, or never."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from infra.health import Health
from learner import wire
from learner.patience import Patience
from learner.wire import Decoder
from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import UnknownSchema
from schemas.events import PolicyVersion
from tests.producers.fakes import announcement

EVENT = announcement(1, b"weights")
VALUE = codec.frame(7, codec.encode(EVENT))


class Registry:
    """One that has a schema from the `known_after`-th look on."""

    def __init__(self, known_after: float, health: Health) -> None:
        self.known_after = known_after
        self.ready: list[bool] = []
        self._health = health

    def schema_of(self, schema_id: int, record: str) -> AvroSchema:
        """Whether the learner calls itself ready meanwhile is noted."""
        self.ready.append(self._health.readiness()[0])
        if len(self.ready) < self.known_after:
            raise UnknownSchema(f"schema id {schema_id} is not in the registry")
        return codec.latest(record)


def decoder(known_after: float, health: Health, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Registry]:
    monkeypatch.setattr(wire, "_LOOK_SECONDS", 0.0)
    registry: Any = Registry(known_after, health)
    return Decoder(registry, PolicyVersion, Patience(threading.Event(), health)), registry


def test_a_schema_that_comes_late_costs_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    health.set_ready(True)
    made, registry = decoder(5, health, monkeypatch)
    assert made.decode(VALUE) == EVENT
    assert registry.ready == [True, False, False, False, False]
    assert health.readiness()[0]
    assert made.decode(VALUE) == EVENT
    assert len(registry.ready) == 5


def test_one_that_never_comes_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    made, registry = decoder(float("inf"), health, monkeypatch)
    for looks in (16, 17, 18):
        with pytest.raises(UnknownSchema, match="7 is not in the registry"):
            made.decode(VALUE)
        assert len(registry.ready) == looks
    registry.known_after = 0
    assert made.decode(VALUE) == EVENT
    assert health.readiness()[0]
