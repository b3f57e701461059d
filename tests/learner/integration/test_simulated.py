"""A learner in simulated time: what it publishes depends on the episodes and on nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest

from schemas.events import EpisodeSource
from tests.learner.integration.site import FAST, Site, wait_for
from tests.learner.synthetic import make_episode

# Nine learners are started one after another; on a busy machine that takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

INTERVAL, BOUNDARIES, ROBOTS = 100.0, 4, 2
SETTINGS = {
    "PRETRAIN_EPISODES": "2",
    "SIMULATED_INTERVAL": str(INTERVAL),
    "SIMULATED_ROBOTS": str(ROBOTS),
    "SIMULATED_PATIENCE": "36000",  # the robots beat once, and however long the learners take they are heard
}
CRASH = "tests.learner.integration.crash"
CRASHES = (
    ("update", 11),
    ("announcement", 1),
    ("checkpoint", 1),
    ("admission", 3),
    ("turn", 1),
    ("pruning", 1),
)


@pytest.fixture(scope="module")
def unbroken(site: Site) -> list[str]:
    """Hashes of the versions of a learner that nothing happened to."""
    site.put(
        make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=20)
        for n, task in enumerate(("lift", "push"))
    )
    episodes = [
        make_episode(
            10 + n, robot=f"robot-{n % ROBOTS}", steps=30, human=(5, 25), simulated_ended_at=20.0 * (n + 1)
        )
        for n in range(BOUNDARIES * 5)
    ]
    random.Random(3).shuffle(episodes)
    site.put(episodes)
    site.put([make_episode(80, task="juggle", robot="robot-0", steps=9, simulated_ended_at=30.0)], payload=False)
    for robot, others in enumerate((1, 0)):  # the robot counts what no learner asks for, too
        site.beat(f"robot-{robot}", BOUNDARIES * INTERVAL + 5.0, ended=len(episodes) // ROBOTS + others)
    with site.learner("unbroken", SETTINGS):
        versions = site.wait_for_version("unbroken", 1 + BOUNDARIES)
    assert [version.version for version in versions] == list(range(1, 2 + BOUNDARIES))
    assert [version.simulated_seconds for version in versions] == [k * INTERVAL for k in range(1 + BOUNDARIES)]
    assert [version.episodes_admitted for version in versions] == [2 + 5 * k for k in range(1 + BOUNDARIES)]
    assert len({version.sha256 for version in versions}) == len(versions)
    return [version.sha256 for version in versions]


def test_learner_killed_inside_publications_publishes_the_same_versions_bit_for_bit(
    site: Site, unbroken: list[str]
) -> None:
    for call, count in CRASHES:
        with site.learner("broken", SETTINGS, command=(CRASH, call, str(count))) as process:
            assert process.wait(300.0) == -9
    with site.learner("broken", SETTINGS):
        versions = site.wait_for_version("broken", 1 + BOUNDARIES)
    assert [version.version for version in versions] == list(range(1, 2 + BOUNDARIES))
    assert [version.sha256 for version in versions] == unbroken
    told = site.progress("broken")
    assert {event.simulated_seconds for event in told} <= {k * INTERVAL for k in range(1 + BOUNDARIES)}
    made = {event.version: event for event in site.lineage("broken")}
    straight = {event.version: event for event in site.lineage("unbroken")}
    assert list(made) == list(straight) == list(range(1, 2 + BOUNDARIES))
    assert [event.episodes for event in made.values()] == [event.episodes for event in straight.values()]
    steps = np.diff([0, *(version.learner_step for version in versions)])
    draws = [sum(episode.draws for episode in event.episodes) for event in made.values()]
    assert draws == [int(FAST["BATCH_SIZE"]) * count for count in steps]


def test_learner_killed_after_an_announcement_has_told_what_it_had_admitted(
    site: Site, unbroken: list[str]
) -> None:
    # One update for each boundary: fewer than those that are told of while a version is made.
    settings = SETTINGS | {"MAX_UPDATES_PER_ONLINE_STEP": "0.01"}
    with site.learner("tells", settings, command=(CRASH, "turn", "2")) as process:
        assert process.wait(300.0) == -9
    admitted = site.versions("tells")[-1].episodes_admitted
    told = {admission.episode_id for event in site.progress("tells") for admission in event.admitted}
    assert (len(unbroken), admitted, len(told)) == (1 + BOUNDARIES, 2 + 5, 2 + 5)


def test_learner_waits_at_the_boundary_until_the_fleet_arrives(site: Site, unbroken: list[str]) -> None:
    assert unbroken
    settings = SETTINGS | {"CHECKPOINT_EVERY": "100"}
    with site.learner("waits", settings):
        site.wait_for_version("waits", 1 + BOUNDARIES)
    with site.learner("waits", settings):
        wait_for(lambda: site.log("waits").count("version_trained_again") == BOUNDARIES)
        site.put([make_episode(90, robot="robot-0", steps=30, simulated_ended_at=INTERVAL * BOUNDARIES + 50.0)])
        site.beat("robot-0", INTERVAL * (BOUNDARIES + 1), ended=12)
        with pytest.raises(AssertionError):
            wait_for(lambda: len(site.versions("waits")) > 1 + BOUNDARIES, timeout=2.0)
        site.beat("robot-1", INTERVAL * (BOUNDARIES + 1), ended=10)
        assert site.wait_for_version("waits", 2 + BOUNDARIES)[-1].episodes_admitted == 2 + 5 * BOUNDARIES + 1
