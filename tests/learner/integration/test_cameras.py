"""From a robot's camera to a policy that sees, on real servers: and the same again, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infra.settings import CacheSettings
from learner.policies import Policy, load_policy
from learner.policies.artifact import unpack
from learner.present import verdict
from learner.reproduce import replay
from producers.policy_fit import RobotKind
from producers.policy_swap import swap
from producers.robot import RobotClient
from schemas.events import EpisodeMaterialized, EpisodeSource, Feature
from schemas.topics import TRAINING_EPISODES
from tests.infra.scenes import depth, scene
from tests.learner.integration.site import Site, terminate, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS, SIZE = 24, 32
VECTORS = (Feature(name="state", shape=(3,)), Feature(name="action", shape=(2,)))
WRIST = Feature(name="wrist", dtype="uint8", shape=(SIZE, SIZE, 3))
DEPTH = Feature(name="depth", dtype="uint16", shape=(16, 16))
FEATURES = (*VECTORS, WRIST, DEPTH)
SETTINGS = {
    "ARCHITECTURE": "flow-transformer",
    "CAMERAS": '["wrist"]',
    "HIDDEN": "[8]",
    "BATCH_SIZE": "8",
    "PRETRAIN_EPISODES": "2",
    "PRETRAIN_STEPS": "20",
    "PUBLISH_EVERY": "10",
    "CHECKPOINT_EVERY": "3",
}


def record(
    client: RobotClient, number: int, source: EpisodeSource, features: tuple[Feature, ...] = FEATURES
) -> str:
    """An episode whose camera misses two steps; online ones are corrected by a human throughout."""
    seen, depths = scene(STEPS, SIZE, seed=number), depth(STEPS, 16, 16)
    random = np.random.default_rng(number)
    with client.episode(
        task="push", instruction="", features=features, source=source, fps=20.0, max_steps=100
    ) as episode:

        def play() -> None:
            for step in range(STEPS):
                state = random.normal(size=3)
                frames = {"depth": depths[step]} | ({} if step in (5, 6) else {"wrist": seen[step]})
                frames = {name: image for name, image in frames.items() if name in {f.name for f in features}}
                episode.step(state=state, action=np.tanh(state[:2]), frames=frames)

        if source is EpisodeSource.ONLINE:
            with episode.intervention(operator="ada", reason=""):
                play()
        else:
            play()
        episode.end(success=True)
        return episode.episode_id


def announced(site: Site) -> set[str]:
    return {event.episode_id for event in site._read(TRAINING_EPISODES, EpisodeMaterialized)}


def test_a_fleet_with_cameras_trains_a_policy_that_sees_and_its_versions_come_out_again(
    own_site: Site, tmp_path: Path
) -> None:
    site = own_site
    settings = {**SETTINGS}
    with site.materializer():
        with RobotClient(site.settings, "robot-1", tmp_path / "robot-1", close_timeout=60.0) as client:
            ids = [record(client, n, EpisodeSource.DEMONSTRATION) for n in range(2)]
            ids += [record(client, 10 + n, EpisodeSource.ONLINE) for n in range(2)]
        wait_for(lambda: announced(site) >= set(ids))
        [lost] = [key for key in site.store.list(f"frames/{ids[3]}/") if key.endswith(".mp4")]
        site.store.delete(lost)
        with site.learner("sees", settings):
            site.wait_for_version("sees", 2)
        with RobotClient(site.settings, "robot-2", tmp_path / "robot-2", close_timeout=60.0) as client:
            ids += [record(client, 20 + n, EpisodeSource.ONLINE) for n in range(2)]
            ids.append(record(client, 30, EpisodeSource.ONLINE, VECTORS))
        wait_for(lambda: announced(site) >= set(ids))
        with site.learner("sees", settings) as process:
            # One update for each of 24 online steps of three episodes: those without the segment are set aside.
            versions = wait_for(
                lambda: [v for v in site.versions("sees") if v.learner_step >= 20 + 70] and site.versions("sees")
            )
            assert terminate(process, within=120.0) == 0
    log = site.log("sees")
    assert lost in log
    assert "no feature 'wrist'" in log
    assert versions[-1].episodes_admitted == 5
    for version in (1, len(versions)):
        done = replay(site.settings, "sees", version)
        assert ["av " in kind for kind in done.there] == [True], "what decoded the images is part of the kind"
        assert done.equal, verdict(done)
    elsewhere = CacheSettings(directory=tmp_path / "elsewhere", max_bytes=0, image_bytes=0)
    again = replay(
        site.settings.model_copy(update={"cache": elsewhere}), "sees", len(versions), from_checkpoint=True
    )
    assert again.equal, verdict(again)
    spec, _ = unpack(site.store.get(site.store.key(versions[-1].artifact_uri)))
    assert (spec.cameras, spec.features) == (("wrist",), (*VECTORS, WRIST))
    fly(site, tmp_path)


def fly(site: Site, tmp_path: Path) -> None:
    """A robot with this camera runs the policy on what it sees; one with another is not given it."""
    other = Feature(name="wrist", dtype="uint8", shape=(64, 64, 3))
    newest = site.versions("sees")[-1].version
    with (
        RobotClient(site.settings, "robot-3", tmp_path / "robot-3") as client,
        RobotClient(site.settings, "robot-4", tmp_path / "robot-4") as blind,
    ):
        inbox = client.follow("sees", kind=RobotKind(FEATURES, fps=20.0))
        refused = blind.follow("sees", kind=RobotKind((*VECTORS, other), fps=20.0))
        assert inbox.wait_for(lambda version: version.version == newest, timeout=60.0) is not None
        policy: Policy | None = swap(client, inbox, load_policy)
        assert policy is not None
        state, images = np.ones(3, np.float32), scene(2, SIZE)
        one, two = (policy.act(state, "push", {"wrist": image}) for image in images)
        assert one.shape == (policy.spec.chunk, 2)
        assert np.abs(one - two).max() > 0
        wait_for(lambda: any("'wrist' is uint8[32, 32, 3]" in error for error in refused.errors()))
        assert refused.current() is None


def test_cameras_that_nobody_asked_for_are_no_part_of_the_policy(site: Site, tmp_path: Path) -> None:
    with site.materializer():
        with RobotClient(site.settings, "robot-5", tmp_path / "robot-5", close_timeout=60.0) as client:
            ids = {record(client, n, EpisodeSource.DEMONSTRATION) for n in range(2)}
        wait_for(lambda: announced(site) >= ids)
    with site.learner("blind", SETTINGS | {"CAMERAS": "[]"}) as process:
        [version] = site.wait_for_version("blind", 1)
        assert terminate(process, within=120.0) == 0
    spec, _ = unpack(site.store.get(site.store.key(version.artifact_uri)))
    assert (spec.cameras, spec.features) == ((), VECTORS)
    assert "cameras" not in spec.document()
    assert json.loads(version.config)["cameras"] == []
    assert replay(site.settings, "blind", 1).equal
