"""The first version of a line, from demonstrations of which some are of another robot, or of none."""

from __future__ import annotations

import pytest

from learner.policies import load_policy
from schemas.events import EpisodeSource
from tests.learner.integration.site import Site, wait_for
from tests.learner.synthetic import STATE, Synthetic, make_episode

pytestmark = pytest.mark.slow


def demonstration(number: int, *, state: int = STATE, fps: float = 10.0) -> Synthetic:
    return make_episode(number, source=EpisodeSource.DEMONSTRATION, steps=20, state=state, fps=fps)


def test_demonstrations_of_other_kinds_are_set_aside_and_the_base_waits_for_enough_of_one(site: Site) -> None:
    wide, fast = [demonstration(n, state=9) for n in (0, 1)], demonstration(2, fps=30.0)
    good = [demonstration(n) for n in (10, 11, 12)]
    lying = demonstration(3)
    lying = Synthetic(lying.event.model_copy(update={"features": wide[0].event.features}), lying.payload)
    weights = {"TASK_WEIGHTS": '{"push": 2, "pusch": 3}'}
    with site.learner("mixed", {"PRETRAIN_EPISODES": "3", **weights}) as process:
        site.put([*wide, fast, lying, good[0]])
        wait_for(lambda: "demonstrations_do_not_suffice" in site.log("mixed"))
        assert process.poll() is None
        assert site.versions("mixed") == []
        site.put(good[1:])
        (first, *_) = site.wait_for_version("mixed", 1)
        assert first.episodes_admitted == 3
        spec = load_policy(site.store.get(site.store.key(first.artifact_uri))).spec
        assert (spec.state_size, spec.fps) == (STATE, 10.0)
        told = wait_for(lambda: site.progress("mixed"))
    admitted = {admission.episode_id for event in told for admission in event.admitted}
    assert admitted == {made.event.episode_id for made in good}
    assert site.log("mixed").count("episode_set_aside") == 4
    assert site.log("mixed").count("settings_not_heeded") == 1
