"""Where everything stands when an audit begins. What is newer is not judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from consumers.audit.reading import Spans, spans_of
from infra.kafka import LogReader, Partition
from infra.kafka.positions import Positions, committed_offsets
from infra.settings import Settings
from schemas.topics import DEAD_LETTERS, EPISODE_LABELS, ROBOT_TOPICS, TRAINING_EPISODES


@dataclass(frozen=True, slots=True)
class Standing:
    """Positions, in the order in which they were taken: offsets before what was committed with them.

    committed: the materializer's next offsets. indexed: the index's, by topic and partition number.
    robots, labels, training, dead: what the topics held.
    """

    committed: dict[Partition, int]
    indexed: dict[str, dict[int, int]]
    robots: Spans
    labels: Spans
    training: Spans
    dead: Spans

    @property
    def read_to(self) -> dict[int, int]:
        """Next offset of the training stream by partition number, as far as it is read."""
        return {number: end for (_, number), (_, end) in self.training.items()}


def take_standing(settings: Settings, reader: LogReader, since: datetime | None) -> Standing:
    """Ask for all positions; robot topics from `since` on, if it is given.

    Raises:
        KafkaUnavailable: no answer in time.
    """
    robots = [partition for topic in ROBOT_TOPICS for partition in reader.partitions(topic)]
    labels = reader.partitions(EPISODE_LABELS)
    stored = [partition for topic in (TRAINING_EPISODES, DEAD_LETTERS) for partition in reader.partitions(topic)]
    committed = committed_offsets(settings.kafka, settings.materializer.group, [*robots, *labels])
    indexed = committed_offsets(settings.kafka, settings.index.group, stored)
    spans = spans_of(reader, ROBOT_TOPICS)
    if since is not None:
        first = Positions(settings.kafka).since(robots, since)
        spans = {p: (max(low, first.get(p, end)), end) for p, (low, end) in spans.items()}
    return Standing(
        committed,
        {
            topic: {number: offset for (name, number), offset in indexed.items() if name == topic}
            for topic in (TRAINING_EPISODES, DEAD_LETTERS)
        },
        spans,
        spans_of(reader, [EPISODE_LABELS]),
        spans_of(reader, [TRAINING_EPISODES]),
        spans_of(reader, [DEAD_LETTERS]),
    )
