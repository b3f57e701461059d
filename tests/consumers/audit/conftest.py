"""One stack for the whole folder, with traffic that was materialized and indexed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from infra.deploy import deploy
from infra.local.stack import Stack
from infra.settings import Settings
from schemas.topics import ROBOT_STEPS
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.consumers.robots import STATE, Robot, vector


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("stack"), timeout=300) as stack:
        yield stack


@pytest.fixture(scope="package")
def pipeline(servers: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has seen whole, broken, late and open episodes, and whose processes are stopped again."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in servers.environment().items():
            patch.setenv(name, value)
        settings = Settings()
        deploy(settings)
        with Pipeline(settings, tmp_path_factory.mktemp("logs")) as running:
            _traffic(running)
            yield running


def _traffic(pipeline: Pipeline) -> None:
    chance = random.Random(7)
    member = pipeline.start(
        "materialize",
        SOP_MATERIALIZER__EPISODE_TIMEOUT="2",
        SOP_MATERIALIZER__OFFSETS_INTERVAL="0.3",
    )
    index = pipeline.start("index")
    whole = [Robot(f"robot-{n}").episode(chance.randint(3, 30), intervene_at=2) for n in range(8)]
    for events in whole:
        pipeline.send(events)
    pipeline.send(chance.sample(whole[0], 5))  # resent: their delivery reports were lost
    pipeline.send_raw(ROBOT_STEPS, b"robot-0", b"no frame")
    sick = Robot("sick").episode(6)
    sick[3] = sick[3].model_copy(update={"state": vector(STATE + 1, 0.0)})
    pipeline.send(sick)
    stray = Robot("stray").episode(3)[1:]  # its start never comes
    pipeline.send(stray)
    late = Robot("late").episode(10)
    pipeline.send(late[:6])
    wait_until(lambda: late[0].episode_id in pipeline.newest(), "the silent episode is closed")
    pipeline.send(late[6:])
    announced = {events[0].episode_id for events in (*whole, sick, late)}
    wait_until(lambda: pipeline.newest().keys() == announced, "all announced")
    wait_until(lambda: pipeline.newest()[late[0].episode_id].step_count == 10, "the late events are in")
    expected = 1 + 1 + len(stray)
    wait_until(lambda: len(pipeline.dead_letters()) == expected, "dead letters")
    rows = "SELECT (SELECT count() FROM episodes WHERE step_count > 0), (SELECT count() FROM dead_letters), "
    rows += "(SELECT max(revision) FROM episodes)"
    wait_until(lambda: pipeline.query(rows) == [(len(announced), expected, 2)], "all indexed")
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0
    # Read by nobody yet.
    pipeline.send(Robot("open").episode(4, ends=False))
