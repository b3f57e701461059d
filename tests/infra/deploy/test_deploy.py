"""`sop deploy`: everything is there after the first run, the second changes nothing, conflicts are refused."""

from __future__ import annotations

import pytest

from infra.belonging import owner_of, refuse_another, write_owner
from infra.clickhouse.migrate import load_migrations
from infra.deploy import Deployment, deploy
from infra.deploy import apply as module
from infra.errors import DeploymentConflict, KafkaUnavailable
from infra.kafka.admin import ClusterAdmin
from infra.kafka.identity import cluster_id
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas import codec
from schemas.topics import EPISODE_TOPICS, INDEX_TOPICS, TOPICS


@pytest.fixture
def own(settings: Settings, name: str) -> Settings:
    """Settings of a site that was never deployed to, as far as it has names of its own."""
    return settings.model_copy(
        update={
            "s3": settings.s3.model_copy(update={"bucket": name}),
            "clickhouse": settings.clickhouse.model_copy(update={"database": name.replace("-", "_")}),
            "materializer": settings.materializer.model_copy(update={"group": f"{name}-materializer"}),
            "index": settings.index.model_copy(update={"group": f"{name}-index"}),
        }
    )


def test_the_first_run_makes_everything_and_the_second_changes_nothing(own: Settings) -> None:
    first = deploy(own)
    assert first.bucket_created
    assert first.migrations == [migration.name for migration in load_migrations()]
    assert first.first_offsets == {
        own.materializer.group: sum(TOPICS[topic].partitions for topic in EPISODE_TOPICS),
        own.index.group: sum(TOPICS[topic].partitions for topic in INDEX_TOPICS),
    }
    counts = ClusterAdmin(own.kafka).partition_counts()
    assert {name: counts[name] for name in TOPICS} == {name: topic.partitions for name, topic in TOPICS.items()}
    registry = Registry(own.registry)
    for topic in TOPICS.values():
        if topic.event:
            found = registry.id_of(topic.name, codec.latest(topic.event))
            assert found == first.schema_ids[topic.subject]
            assert registry.schema_of(found, topic.event).record == topic.event

    second = deploy(own)
    unchanged = {own.materializer.group: 0, own.index.group: 0}
    assert second == Deployment(schema_ids=first.schema_ids, first_offsets=unchanged)


def test_a_bucket_knows_which_kafka_filled_it_and_another_one_does_not_change_that(own: Settings) -> None:
    deploy(own)
    objects, ours = ObjectStore(own.s3), cluster_id(own.kafka)
    assert owner_of(objects) == ours
    refuse_another(objects, ours)
    write_owner(objects, "another")
    deploy(own)
    assert owner_of(objects) == "another"
    with pytest.raises(DeploymentConflict, match=f"filled from Kafka cluster another, and this is cluster {ours}"):
        refuse_another(objects, ours)


def test_another_partition_count_is_refused_before_anything_else_is_made(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ClusterAdmin(own.kafka).ensure_topics(TOPICS.values())
    steps = TOPICS["robot-steps"]
    changed = {**TOPICS, steps.name: steps.model_copy(update={"partitions": steps.partitions * 2})}
    monkeypatch.setattr(module, "TOPICS", changed)
    with pytest.raises(DeploymentConflict, match=r"robot-steps has 4 partitions, topics\.yaml says 8"):
        deploy(own)
    assert ObjectStore(own.s3).ensure_bucket(), "it had not been made"


def test_a_server_that_is_down_is_named_by_its_kind(own: Settings) -> None:
    down = own.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "request_timeout": 0.3})
    with pytest.raises(KafkaUnavailable):
        deploy(own.model_copy(update={"kafka": down}))
