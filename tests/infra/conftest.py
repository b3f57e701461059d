"""Names of our own on the shared servers, so that no test meets another's records, objects or rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from infra.kafka.admin import ClusterAdmin
from infra.local.stack import Stack
from infra.settings import ClickHouseSettings, KafkaSettings, RegistrySettings, S3Settings, Settings
from schemas.topics import TOPICS, Topic

MakeTopic = Callable[..., Topic]
PATIENCE = 60.0
"""Seconds that a server may take for an answer; a busy machine is not on trial. Kafka keeps to the default: the
first look for a group's coordinator takes all of the time that it is given."""
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    """What reaches the shared servers; bucket, database and groups are the tests' own."""
    sections: dict[str, dict[str, str]] = {}
    for name, value in stack.environment().items():
        section, field = name.removeprefix("SOP_").lower().split("__")
        sections.setdefault(section, {})[field] = value
    return Settings(
        kafka=KafkaSettings.model_validate(sections["kafka"]),
        s3=S3Settings.model_validate({**sections["s3"], "bucket": "tests-infra", "timeout": PATIENCE}),
        clickhouse=ClickHouseSettings.model_validate(
            {**sections["clickhouse"], "database": "tests_infra", "timeout": PATIENCE}
        ),
        registry=RegistrySettings.model_validate({**sections["registry"], "timeout": PATIENCE}),
    )


@pytest.fixture
def name() -> str:
    """A name that no other test has; fit for groups, topics, buckets and transactional ids."""
    return f"infra-{next(_numbers)}"


@pytest.fixture
def make_topic(settings: Settings, name: str) -> MakeTopic:
    """Make a topic like training-episodes, changed as asked."""

    def make(suffix: str = "", **changes: object) -> Topic:
        like = TOPICS["training-episodes"].model_copy(update={"partitions": 2, **changes})
        topic = like.model_copy(update={"name": f"{name}{suffix}"})
        ClusterAdmin(settings.kafka).ensure_topics([topic])
        return topic

    return make
