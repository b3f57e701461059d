"""`sop deploy`: bucket, topics, schemas, first offsets and tables. Idempotent; a second run changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from infra.clickhouse.migrate import migrate
from infra.clickhouse.payloads import ensure_episode_steps
from infra.kafka.admin import ClusterAdmin
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.topics import EPISODE_TOPICS, INDEX_TOPICS, TOPICS


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
    done.bucket_created = ObjectStore(settings.s3).ensure_bucket()
    done.migrations = migrate(settings.clickhouse)
    ensure_episode_steps(settings.clickhouse, settings.s3)
    return done
