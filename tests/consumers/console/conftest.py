"""A console over a real ClickHouse, object store and registry that hold a fleet's last six hours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from consumers.console.app import application, build
from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.clickhouse.payloads import ensure_episode_steps
from infra.clock import SystemClock
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.topics import ROBOT_STEPS, TOPICS
from tests.consumers.console.fleet import BUCKET, LINE, Fleet, letters
from tests.infra.clickhouse.world import insert

DATABASE = "console_tests"


@dataclass(frozen=True)
class World:
    """Settings of the console, and what the servers hold."""

    settings: Settings
    environment: dict[str, str]
    fleet: Fleet

    def beat(self, writer: Client, *robots: str, **changes: object) -> None:
        """A heartbeat of each robot, now."""
        now = datetime.now(UTC)
        insert(writer, [self.fleet.heartbeat(robot, now, spool=3).model_copy(update=changes) for robot in robots])


def environment_of(stack: Stack, **own: str) -> dict[str, str]:
    return {
        **stack.environment(),
        "SOP_CLICKHOUSE__DATABASE": DATABASE,
        "SOP_S3__BUCKET": BUCKET,
        "SOP_LEARNER__POLICY": LINE,
        "SOP_CONSOLE__QUERY_SECONDS": "60",
        **own,
    }


def settings_of(environment: dict[str, str]) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings()


@pytest.fixture(scope="package")
def world(stack: Stack) -> World:
    environment = environment_of(stack)
    settings = settings_of(environment)
    store = ObjectStore(settings.s3)
    store.ensure_bucket()
    # A worker that comes back to these tests begins with what they expect.
    server = connect(settings.clickhouse.model_copy(update={"database": "default"}))
    server.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
    server.close()
    migrate(settings.clickhouse)
    ensure_episode_steps(settings.clickhouse, settings.s3)
    fleet = Fleet(datetime.now(UTC))
    store.put(fleet.payload.key, fleet.payload.data)
    schema_id = Registry(settings.registry).deploy(TOPICS[ROBOT_STEPS])
    client = connect(settings.clickhouse)
    insert(client, fleet.events(), letters(fleet.now, schema_id))
    client.close()
    return World(settings, environment, fleet)


@pytest.fixture
def writer(world: World) -> Iterator[Client]:
    client = connect(world.settings.clickhouse)
    yield client
    client.close()


@pytest.fixture
def pages(world: World) -> Iterator[TestClient]:
    """The console that only reads."""
    app = application(build(world.settings, SystemClock()), ["testserver"])
    with TestClient(app, base_url="http://testserver") as client:
        yield client
