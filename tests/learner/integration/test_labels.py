"""What a label excludes is drawn from no more, by whichever learner of the line; and the journal knows."""

from __future__ import annotations

import pytest

from learner.reproduce import replay
from schemas.events import EpisodeSource
from tests.learner.integration.site import Site, wait_for
from tests.learner.synthetic import Synthetic, make_episode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = {"PRETRAIN_EPISODES": "2", "PRETRAIN_STEPS": "20", "PUBLISH_EVERY": "10"}
DEMONSTRATIONS = [make_episode(n, source=EpisodeSource.DEMONSTRATION, steps=12) for n in range(2)]
FLEET = [make_episode(20 + n, steps=30, human=(2, 25), robot=f"robot-{n % 3}") for n in range(8)]


def labelled(made: Synthetic, revision: int, *, excluded: bool) -> Synthetic:
    return Synthetic(made.event.model_copy(update={"revision": revision, "excluded": excluded}), made.payload)


def drawn(site: Site, version: int) -> set[str]:
    """Episodes that a version was made from."""
    told = [event for event in site.lineage("labels") if event.version == version]
    return {episode.episode_id for event in told for episode in event.episodes}


def test_an_excluded_episode_is_forgotten_across_a_kill_and_taken_in_again_when_it_is_included(site: Site) -> None:
    out = FLEET[0]
    site.put([*DEMONSTRATIONS, *FLEET[:2]])
    with site.learner("labels", SETTINGS):
        before = site.wait_for_version("labels", 5)[-1].version
        assert any(out.event.episode_id in drawn(site, version) for version in range(2, before + 1))
        site.put([labelled(out, 2, excluded=True)])
        wait_for(lambda: site.log("labels").count("episode_excluded") == 1)
        site.put(FLEET[2:4])
        forgotten = site.wait_for_version("labels", before + 3)[-1].version
        killed_at = site.versions("labels")[-1].version
    with site.learner("labels", SETTINGS):
        site.put(FLEET[4:6])
        resumed = site.wait_for_version("labels", killed_at + 3)[-1].version
        for version in range(forgotten, resumed + 1):
            assert drawn(site, version), version
            assert out.event.episode_id not in drawn(site, version)
        site.put([labelled(out, 3, excluded=False), *FLEET[6:]])
        wait_for(lambda: out.event.episode_id in drawn(site, site.versions("labels")[-1].version))
    newest = site.versions("labels")[-1].version
    assert replay(site.settings, "labels", newest).equal
