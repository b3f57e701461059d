"""A learner of a real fleet: no simulated time, data as it comes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from infra.object_store import sha256_hex
from learner.policies import load_policy
from schemas.events import EpisodeSource, PolicyVersion
from tests.learner.integration.site import Site, steps_told, terminate, wait_for
from tests.learner.synthetic import STATE, Synthetic, make_episode, make_payload
from tests.learner.test_board import curves

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STOP_SECONDS = 120.0
"""It stops within 0.2 s; the interpreter then takes 0.5 s to let go of torch, and much longer on busy cores."""

DEMONSTRATIONS = [
    make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=20)
    for n, task in enumerate(("lift", "push"))
]


def online(first: int, count: int) -> list[Synthetic]:
    return [make_episode(n, steps=30, human=(5, 25), robot=f"robot-{n % 3}") for n in range(first, first + count)]


def test_learner_stops_when_told_while_it_waits_for_demonstrations(site: Site) -> None:
    with site.learner("waiting", {"PRETRAIN_EPISODES": "1000"}) as process:
        wait_for(lambda: "learner_waits" in site.log("waiting"))
        assert terminate(process, within=STOP_SECONDS) == 0
    assert site.versions("waiting") == []


def test_learner_killed_at_any_time_goes_on_without_gap_or_double_and_samples_no_evaluation(
    own_site: Site, tmp_path: Path
) -> None:
    site = own_site
    evaluations = [make_episode(n, source=EpisodeSource.EVALUATION, human=(0, 12)) for n in range(100, 110)]
    missing, altered, absurd = make_episode(200), make_episode(201), scaled(make_episode(202), 1e9)
    others = [make_episode(n, state=STATE + 1) for n in range(203, 206)]
    site.put(DEMONSTRATIONS)
    site.put(evaluations)
    site.put([missing, *others], payload=False)
    site.put([altered, absurd])
    site.store.put(site.store.key(altered.event.payload_uri), b"altered")
    chance = random.Random(1)
    settings = {"PRETRAIN_EPISODES": "2", "TENSORBOARD": str(tmp_path / "curves")}
    for round_ in range(4):
        with site.learner("live", settings):
            before = len(site.versions("live"))
            site.put(online(10 + 5 * round_, 5))
            site.wait_for_version("live", before + 1)
            time.sleep(chance.random() * 0.3)  # the kill falls anywhere
    with site.learner("live", settings) as process:
        site.put(online(30, 5))
        versions = wait_for(lambda: caught_up(site, "live"))
        wait_for(lambda: len(site.store.list("checkpoints/live/")) == 3)  # they are pruned after the announcement
        assert terminate(process, within=STOP_SECONDS) == 0
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))
    assert [version.parent_version for version in versions] == [None, *range(1, len(versions))]
    for version in versions:
        data = site.store.get(site.store.key(version.artifact_uri))
        assert sha256_hex(data) == version.sha256
        assert len(data) == version.size_bytes
        assert load_policy(data).act(np.zeros(STATE, np.float32), "lift").shape == (4, 3)
    told = site.progress("live")
    admitted = {admission.episode_id for event in told for admission in event.admitted}
    assert admitted == {item.event.episode_id for item in (*DEMONSTRATIONS, *online(10, 25))}
    log = site.log("live")
    assert log.count("hashes to") >= 1
    assert log.count("standard deviations") >= 1
    assert log.count("feature 'state' is") >= 3
    assert "update_skipped" not in log
    assert sum(event.updates_skipped for event in told) == 0
    shares = {share for event in told for task in event.mixing for share in task.online_shares}
    assert len(shares) > 10, "by default mixing is adaptive"
    assert steps_told(told) >= set(range(1, versions[-1].learner_step + 1)), "every draw, whatever was killed"
    assert all(group.draws > 0 for event in told for group in event.groups)
    assert len(site.store.list("checkpoints/live/")) == 3
    points = curves(tmp_path / "curves" / "live")["loss"]
    steps = [step for step, _ in points]
    assert steps == list(range(5, steps[-1] + 1, 5)), "each report is shown once, whatever was killed"
    assert steps[-1] >= 780


def scaled(made: Synthetic, factor: float) -> Synthetic:
    """An episode whose states are so many times too large, as it is announced."""
    frames = made.episode.frames
    actors = ["HUMAN" if acted else "POLICY" for acted in frames.human]
    payload = make_payload(frames.states * np.float32(factor), frames.actions, actors)
    digest = sha256_hex(payload)
    uri = made.event.payload_uri.replace(made.event.payload_sha256, digest)
    return Synthetic(made.event.model_copy(update={"payload_sha256": digest, "payload_uri": uri}), payload)


def caught_up(site: Site, policy: str) -> list[PolicyVersion]:
    """Every update that 25 online episodes of 30 steps allow was made, one for each; 740 fill versions of 20."""
    versions = site.versions(policy)
    return versions if versions[-1].learner_step == 40 + 740 else []


def test_older_learner_of_a_line_is_fenced_and_says_so(site: Site) -> None:
    settings = {"PRETRAIN_EPISODES": "2"}
    site.put([*DEMONSTRATIONS, *online(290, 2)])
    with site.learner("fenced", settings) as older:
        site.wait_for_version("fenced", 2)
        with site.learner("fenced", settings):
            wait_for(lambda: "learner_resumes" in site.log("fenced"))
            site.put(online(300, 3))
            assert older.wait(STOP_SECONDS) == 1
            newest = site.versions("fenced")[-1].version
            site.put(online(310, 3))
            versions = site.wait_for_version("fenced", newest + 1)
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))


def test_outages_of_the_object_store_and_the_broker_are_waited_out(own_site: Site) -> None:
    site = own_site
    site.put([*DEMONSTRATIONS, *online(390, 2)])
    with site.learner("patient", {"PRETRAIN_EPISODES": "2"}) as process:
        site.wait_for_version("patient", 2)
        for server, first in (("object_store", 400), ("broker", 420)):
            before = site.versions("patient")[-1].version
            arrived = online(first, 4)
            if server == "object_store":
                site.stack.kill(server)
                with pytest.raises(AssertionError):
                    wait_for(lambda: process.poll() is not None, timeout=2.0)
                site.stack.restart(server)
                site.put(arrived)
            else:
                site.put(arrived)
                site.stack.kill(server)
                with pytest.raises(AssertionError):
                    wait_for(lambda: process.poll() is not None, timeout=2.0)
                site.stack.restart(server)
                site.put(online(first + 10, 4))
            site.wait_for_version("patient", before + 2)
        assert terminate(process, within=STOP_SECONDS) == 0
    versions = site.versions("patient")
    assert steps_told(site.progress("patient")) >= set(range(1, versions[-1].learner_step + 1))
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))
