"""Positions in a real topic whose records are deleted."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra.errors import OffsetsExpired
from infra.kafka import OutRecord, TransactionalProducer
from infra.registry import Registry
from learner.patience import Patience
from learner.stream import EventStream
from schemas import codec
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES
from tests.learner.integration.site import Site, wait_for
from tests.learner.synthetic import Synthetic, make_episode


def stream_of(site: Site) -> EventStream[EpisodeMaterialized]:
    registry, patience = Registry(site.settings.registry), Patience(threading.Event())
    return EventStream(site.settings.kafka, registry, TRAINING_EPISODES, EpisodeMaterialized, patience)


def announce(site: Site, made: list[Synthetic]) -> None:
    """As the materializer does: in one transaction, behind whose records lie marks that are no records."""
    registry = Registry(site.settings.registry)
    schema_id = registry.id_of(TRAINING_EPISODES, codec.latest("episode_materialized"))
    producer = TransactionalProducer(site.settings.kafka, "test-announcer", timeout=60.0)
    producer.commit(
        [
            OutRecord(TRAINING_EPISODES, b"robot-1", codec.frame(schema_id, codec.encode(item.event)))
            for item in made
        ]
    )


def delete_all(site: Site, partition: int, end: int) -> None:
    """What retention does once all is old."""
    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})
    place = TopicPartition(TRAINING_EPISODES, partition, end)
    admin.delete_records([place])[place].result(30.0)


def test_who_had_read_everything_goes_on_though_all_of_it_was_deleted(site: Site) -> None:
    announce(site, [make_episode(1), make_episode(2)])
    stream = stream_of(site)
    stream.seek()
    found = wait_for(lambda: stream.poll(0.2))
    (partition,) = {item.partition for item in found}
    last = found[-1].offset
    wait_for(lambda: stream.poll(0.2) == [] and stream.positions[partition] > last + 1)
    read = stream.positions
    stream.close()
    assert read[partition] == last + 2, "behind the transaction's mark"
    delete_all(site, partition, read[partition])
    again = stream_of(site)
    again.seek(read)
    for _ in range(10):
        assert again.poll(0.2) == []
    announce(site, [make_episode(3)])
    (item,) = wait_for(lambda: again.poll(0.2))
    assert item.event == make_episode(3).event
    again.close()
    early = stream_of(site)
    early.seek({**read, partition: last + 1})
    with pytest.raises(OffsetsExpired):
        wait_for(lambda: early.poll(0.2))
    early.close()
