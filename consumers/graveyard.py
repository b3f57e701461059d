"""Dead-letters, asked whether certain records are there; seldom needed (history.py says when)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from consumers.dead_letters import place_of
from consumers.history import Graveyard
from consumers.tombstone import Place
from infra.errors import InfraError, KafkaUnavailable
from infra.kafka import LogReader
from infra.kafka.log_reader import READ_SILENCE
from infra.kafka.positions import Positions
from infra.settings import KafkaSettings
from schemas.topics import DEAD_LETTERS

CLOCKS_APART_MS = 10 * 60 * 1000
"""Brokers stamp what they append; their clocks need not agree."""
BEAT_EVERY = 10_000
"""Records between two signs of life."""

_log = structlog.get_logger(__name__)


class DeadLetterLog:
    """The topic dead-letters, committed records only.

    Args:
        kafka: where it is.
        reader: reads it; used in the calling thread.
    """

    def __init__(self, kafka: KafkaSettings, reader: LogReader) -> None:
        self._kafka = kafka
        self._reader = reader

    def holds(
        self, places: Collection[Place], since_ms: int, beat: Callable[[], None] = lambda: None
    ) -> set[Place]:
        """Those records of one partition number that are dead letters, buried at `since_ms` (epoch) or later.

        `beat` is called while they are read.

        Raises:
            KafkaUnavailable: ask again.
        """
        wanted, found = set(places), set()
        since = datetime.fromtimestamp(max(0, since_ms - CLOCKS_APART_MS) / 1000, UTC)
        partitions = [(DEAD_LETTERS, number) for number in sorted({number for _, number, _ in wanted})]
        starts = Positions(self._kafka).since(partitions, since)
        for count, message in enumerate(self._reader.read_to_end(starts, READ_SILENCE) if starts else ()):
            if count % BEAT_EVERY == 0:
                beat()
            try:
                place = place_of(message)
            except ValueError:
                continue  # not of this group: it says nothing about what was buried
            if place in wanted:
                found.add(place)
        _log.info("dead_letters_asked", wanted=len(wanted), found=len(found), since=since.isoformat())
        return found


@dataclass
class Patient:
    """Asks for the episodes of one wave: none after the first that failed, and no further one out of time.

    A silent broker is waited for once, and not once for each episode; what could be answered is kept.
    """

    graveyard: Graveyard
    beat: Callable[[], None]
    has_time: Callable[[], bool]
    _asked: bool = False
    _failure: InfraError | None = None

    def holds(
        self, places: Collection[Place], since_ms: int, _beat: Callable[[], None] = lambda: None
    ) -> set[Place]:
        """See `DeadLetterLog.holds`."""
        if self._failure is not None:
            raise self._failure
        if self._asked and not self.has_time():
            raise KafkaUnavailable("dead-letters were not asked about all contested episodes in one turn")
        self._asked = True
        try:
            return self.graveyard.holds(places, since_ms, self.beat)
        except InfraError as error:
            self._failure = error
            raise
