"""The labels' topic against the training stream: each label is in the newest revision, or on dead-letters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from consumers.audit.announced import Announcements
from consumers.audit.buried import Buried
from consumers.audit.findings import Finding, Kind, Where
from infra.decoder import event_in
from infra.kafka import Message, Partition
from infra.registry import Registry
from schemas.errors import SchemaError
from schemas.events import EpisodeLabelled
from schemas.topics import EPISODE_LABELS


def check_label(
    message: Message,
    registry: Registry,
    announcements: Announcements,
    buried: Buried,
    committed: Mapping[Partition, int],
) -> Iterator[Finding]:
    """What is wrong with one record of the labels' topic.

    Args:
        message: the record.
        registry: knows its schema.
        announcements: the training stream, read after `committed` was asked for.
        buried: dead-letters, likewise.
        committed: the materializer's next offsets: what lies before them was decided.

    Raises:
        RegistryUnavailable: its schema could not be looked up.
    """
    place = (EPISODE_LABELS, int(message.partition() or 0))
    offset = int(message.offset() or 0)
    if offset >= committed.get(place, 0) or buried.has(place, offset):
        return
    whose, episode_id = "a label that cannot be read", None
    try:
        event = event_in(message.value(), EpisodeLabelled, registry.schema_of)
    except SchemaError:
        pass
    else:
        episode = announcements.episodes.get(event.episode_id)
        if episode is not None and event.label.label_id in episode.labels:
            return
        whose, episode_id = f"label {event.label.label_id} of episode {event.episode_id}", event.episode_id
    yield Finding(
        Kind.MISSING,
        Where.LABELS,
        f"{whose} at {place[0]}[{place[1]}]@{offset}",
        "neither in the newest revision of its episode nor on dead-letters; label the episode again",
        episode_id=episode_id,
        topic=place[0],
        partition=place[1],
        offset=offset,
    )
