"""Tombstones that members leave behind."""

from __future__ import annotations

from consumers.tombstone import Run, Tombstone
from schemas.events import EpisodeMaterialized
from schemas.topics import ROBOT_STEPS
from tests.consumers.integration.pipeline import Pipeline


def put_tombstone(pipeline: Pipeline, event: EpisodeMaterialized, offset: int) -> str:
    """As a member leaves it that is about to bury an event of this episode."""
    [part] = [part for part in event.source_offsets if part.topic == ROBOT_STEPS]
    tombstone = Tombstone(
        episode_id=event.episode_id,
        robot_id=event.robot_id,
        boot_epoch=event.boot_epoch,
        appended_ms=0,
        runs=(Run(topic=part.topic, partition=part.partition, offset=part.first + offset, sequence=1, count=1),),
    )
    pipeline.objects.put(tombstone.key, tombstone.data)
    return tombstone.key
