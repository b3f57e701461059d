"""Dead letters of the index: written once each, and never taken for written when they are not."""

from __future__ import annotations

import pytest

from consumers.burial import Burial
from consumers.dead_letters import DeadLetter, Reason
from consumers.records import Origin
from infra.errors import KafkaUnavailable
from infra.kafka import OutRecord
from infra.kafka.producer import OnDelivery


def letter(offset: int) -> DeadLetter:
    place = Origin("training-episodes", 0, offset, 0, b"robot", b"value")
    return DeadLetter(place, Reason.NOT_INDEXABLE, "too large")


class Producer:
    """A producer whose records go on, fail, wait or find no room, as `fate` says."""

    def __init__(self) -> None:
        self.fate = "stored"
        self.stored: list[str] = []
        self._waiting: list[tuple[OutRecord, OnDelivery]] = []

    def send(self, record: OutRecord, on_delivery: OnDelivery | None = None) -> bool:
        assert on_delivery is not None
        if self.fate == "no room":
            return False
        if self.fate == "refused at once":
            on_delivery("Broker: Message size too large", -1)
        else:
            self._waiting.append((record, on_delivery))
        return True

    def flush(self, timeout: float) -> int:
        assert timeout == 3.0
        if self.fate == "waits":
            return len(self._waiting)
        for record, on_delivery in self._waiting:
            if self.fate == "fails":
                on_delivery("Local: Message timed out", -1)
            else:
                self.stored += [value.decode() for name, value in record.headers if name == "offset"]
                on_delivery(None, 7)
        self._waiting.clear()
        return 0


def test_a_letter_that_comes_up_at_every_try_is_written_once() -> None:
    burial, producer = Burial(), Producer()
    assert [burial.add(letter(n)) for n in (1, 2, 1)] == [True, True, False]
    burial.settle(producer, 3.0)
    assert burial.add(letter(2)) is False
    burial.settle(producer, 3.0)
    assert producer.stored == ["1", "2"]


@pytest.mark.parametrize(
    ("fate", "why"),
    [
        ("refused at once", "Message size too large"),
        ("fails", "Message timed out"),
        ("waits", "not acknowledged yet"),
        ("no room", "not acknowledged yet"),
    ],
)
def test_a_letter_that_is_not_stored_is_not_taken_for_stored(fate: str, why: str) -> None:
    burial, producer = Burial(), Producer()
    burial.add(letter(1))
    burial.add(letter(2))
    producer.fate = fate
    for _ in range(2):
        with pytest.raises(KafkaUnavailable, match=f"2 dead letters are not stored: .*{why}"):
            burial.settle(producer, 3.0)
    producer.fate = "stored"
    burial.settle(producer, 3.0)
    assert producer.stored == ["1", "2"], "and none is written twice"
