"""Dead-letters, asked whether certain records are there; seldom needed (history.py says when)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import structlog

from consumers.dead_letters import place_of
from consumers.takeover import READ_SILENCE
from consumers.tombstone import Place
from infra.kafka import LogReader
from infra.kafka.positions import Positions
from infra.settings import KafkaSettings
from schemas.topics import DEAD_LETTERS

CLOCKS_APART_MS = 10 * 60 * 1000
"""Brokers stamp what they append; their clocks need not agree."""

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

    def holds(self, places: Collection[Place], since_ms: int) -> set[Place]:
        """Those records of one partition number that are dead letters, buried at `since_ms` (epoch) or later.

        Raises:
            KafkaUnavailable: ask again.
        """
        wanted, found = set(places), set()
        since = datetime.fromtimestamp(max(0, since_ms - CLOCKS_APART_MS) / 1000, UTC)
        partitions = [(DEAD_LETTERS, number) for number in sorted({number for _, number, _ in wanted})]
        starts = Positions(self._kafka).since(partitions, since)
        for message in self._reader.read_to_end(starts, READ_SILENCE) if starts else ():
            try:
                place = place_of(message)
            except ValueError:
                continue  # not of this group: it says nothing about what was buried
            if place in wanted:
                found.add(place)
        _log.info("dead_letters_asked", wanted=len(wanted), found=len(found), since=since.isoformat())
        return found
