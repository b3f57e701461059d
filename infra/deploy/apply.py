"""`sop deploy`: bucket, topics, schemas, first offsets and tables. Idempotent; a second run changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from infra.belonging import owner_of, write_owner
from infra.clickhouse.migrate import migrate
from infra.clickhouse.payloads import ensure_episode_steps
from infra.kafka.admin import ClusterAdmin
from infra.kafka.identity import cluster_id
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.topics import EPISODE_TOPICS, INDEX_TOPICS, TOPICS

_log = structlog.get_logger(__name__)


@dataclass
class Deployment:
    """What a deployment changed; empty when everything was as it should be."""

    bucket_created: bool = False
    topics_created: list[str] = field(default_factory=list)
    schema_ids: dict[str, int] = field(default_factory=dict)
    first_offsets: dict[str, int] = field(default_factory=dict)
    migrations: list[str] = field(default_factory=list)


def deploy(settings: Settings) -> Deployment:
    """Make the servers agree with the repository.

    Raises:
        infra.errors.Unavailable: a server did not answer.
        infra.errors.DeploymentConflict: partition counts, a schema or a migration contradict what is there.
    """
    done = Deployment()
    admin = ClusterAdmin(settings.kafka)
    registry = Registry(settings.registry)
    done.topics_created = admin.ensure_topics(TOPICS.values())
    for topic in TOPICS.values():
        if topic.event is not None:
            done.schema_ids[topic.subject] = registry.deploy(topic)
    groups = {settings.materializer.group: EPISODE_TOPICS, settings.index.group: INDEX_TOPICS}
    for group, names in groups.items():
        done.first_offsets[group] = admin.ensure_first_offsets(group, [TOPICS[name] for name in names])
    objects = ObjectStore(settings.s3)
    done.bucket_created = objects.ensure_bucket()
    _name_owner(objects, cluster_id(settings.kafka))
    done.migrations = migrate(settings.clickhouse)
    ensure_episode_steps(settings.clickhouse, settings.s3)
    return done


def _name_owner(objects: ObjectStore, cluster: str) -> None:
    """Write down whose bucket it is. If it is another's, that stays: a lost Kafka is set up anew in this way."""
    owner = owner_of(objects)
    if owner is None:
        write_owner(objects, cluster)
    elif owner != cluster:
        _log.warning(
            "bucket_of_another_kafka",
            bucket=objects.bucket,
            filled_from=owner,
            this=cluster,
            hint="sop gc and sop reconcile --repair refuse; see docs/operations.md, Kafka lost training-episodes",
        )
