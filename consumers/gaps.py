"""Offsets that do not follow one another: either the topic has no records there, or the client skipped some.

Robots' records are not written in transactions and their topics are not compacted, so as a rule every offset is a
record. A copy of a topic may be written in transactions, whose markers take offsets. A client that jumped, say to
the end of a partition, says nothing; what it left out would be committed past.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from consumers.intake import Intake
from consumers.vectors import Ints
from infra.kafka import LogReader, Partition
from infra.kafka.log_reader import READ_SILENCE
from schemas.topics import ROBOT_STEPS


@dataclass(frozen=True, slots=True)
class Gap:
    """The record at `found` came where the one at `expected` was to come."""

    partition: Partition
    expected: int
    found: int


def gaps(intake: Intake, positions: Mapping[int, Mapping[str, int]]) -> Iterator[Gap]:
    """Gaps in what was consumed of these partition numbers; `positions` are their next offsets by topic."""
    for number, nexts in positions.items():
        offsets = _offsets(intake, number)
        for topic, found in offsets.items():
            before = np.append(nexts[topic] - 1, found[:-1])
            for at in np.flatnonzero(found > before + 1).tolist():
                yield Gap((topic, number), int(before[at]) + 1, int(found[at]))


def _offsets(intake: Intake, number: int) -> dict[str, Ints]:
    """Offsets of a partition number's records, by topic, in the order in which they came."""
    others: dict[str, list[int]] = defaultdict(list)
    for place in intake.others:
        if place.partition == number:
            others[place.topic].append(place.offset)
    found = {topic: np.array(offsets, np.int64) for topic, offsets in others.items()}
    steps = [records.offsets[records.partitions == number] for records in intake.steps]
    if steps and len(joined := np.concatenate(steps)):
        found[ROBOT_STEPS] = joined
    return found


def skipped(gap: Gap, reader: LogReader) -> bool:
    """Whether records lie in the gap, or did until retention took them.

    Raises:
        KafkaUnavailable: ask again.
    """
    if reader.bounds(gap.partition)[0] > gap.expected:
        return True
    for message in reader.read_to_end({gap.partition: gap.expected}, READ_SILENCE, batch=1):
        return int(message.offset() or 0) < gap.found
    return False
