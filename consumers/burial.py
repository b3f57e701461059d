"""Dead letters of one batch: each is written once, however often the batch is tried."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from consumers.dead_letters import DeadLetter
from infra.errors import KafkaUnavailable
from infra.kafka import OutRecord
from infra.kafka.producer import OnDelivery

Place = tuple[str, int, int]


class Sender(Protocol):
    """What a burial needs of a producer."""

    def send(self, record: OutRecord, on_delivery: OnDelivery | None = None) -> bool:
        """Queue a record; False when the queue is full."""

    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` seconds; the number of records that are still on their way."""


class Burial:
    """The dead letters of a batch. `add` them as they come up, `settle` before its offsets are committed."""

    def __init__(self) -> None:
        self._known: set[Place] = set()
        self._unsent: dict[Place, DeadLetter] = {}
        self._problem = ""

    def add(self, letter: DeadLetter) -> bool:
        """Take a letter in; False if this record's was before."""
        place = (letter.origin.topic, letter.origin.partition, letter.origin.offset)
        if place in self._known:
            return False
        self._known.add(place)
        self._unsent[place] = letter
        return True

    def settle(self, sender: Sender, timeout: float) -> None:
        """Return once every letter is stored, in at most `timeout` seconds.

        Raises:
            KafkaUnavailable: some are not, or not yet; settle again.
        """
        self._problem = ""
        for place, letter in list(self._unsent.items()):
            del self._unsent[place]
            if not sender.send(letter.record(), partial(self._report, place, letter)):
                self._unsent[place] = letter
                break  # the queue is full: the rest after the next flush
        on_their_way = sender.flush(timeout)
        if self._unsent or on_their_way:
            count, problem = len(self._unsent) + on_their_way, self._problem or "not acknowledged yet"
            raise KafkaUnavailable(f"{count} dead letters are not stored: {problem}")

    def _report(self, place: Place, letter: DeadLetter, error: str | None, _offset: int) -> None:
        if error is not None:
            self._problem = error
            self._unsent[place] = letter
