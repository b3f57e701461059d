from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import UnfitEpisode
from learner.plausible import FARTHEST, implausible
from tests.learner.synthetic import make_episode
from tests.learner.test_core import SETTINGS, started
from tests.learner.test_replay import SPEC

ADAPTIVE = SETTINGS.model_copy(update={"mixing": "adaptive"})


def scaled(number: int, factor: float) -> Episode:
    """An episode of the fleet whose states are so many times too large."""
    episode = make_episode(number, steps=30, human=(0, 30)).episode
    frames = replace(episode.frames, states=episode.frames.states * np.float32(factor))
    return replace(episode, frames=frames)


@pytest.mark.parametrize("factor", [1e9, -1e9, 3e37])
def test_a_reading_that_no_sensor_gives_is_refused_with_its_place(factor: float) -> None:
    core = started()
    with pytest.raises(UnfitEpisode, match=r"state\[\d\] is -?\d.* at step \d+: .* standard deviations"):
        core.require_plausible(scaled(5, factor))
    core.require_plausible(scaled(5, 100.0))


def test_actions_are_measured_by_their_deviations_or_their_own_unit() -> None:
    frames = make_episode(1).episode.frames
    actions = frames.actions.copy()
    actions[3, 1] = 2 * FARTHEST
    absurd = replace(frames, actions=actions)
    assert "action[1] is 20000 at step 3" in implausible(SPEC, absurd)
    flow = SPEC.model_copy(update={"action_mean": (0.0,) * 3, "action_std": (5.0,) * 3})
    assert implausible(flow, absurd) == ""
    narrow = SPEC.model_copy(update={"action_mean": (0.0,) * 3, "action_std": (0.01,) * 3})
    actions[3, 1] = 200.0
    assert "standard deviations" in implausible(narrow, absurd)
    assert implausible(SPEC, absurd) == ""


def trained(core: TrainingCore, updates: int) -> int:
    """Updates of so many that were skipped."""
    return sum(core.update(online=True).skipped for _ in range(updates))


def test_updates_that_were_skipped_do_not_move_the_share_of_online_data() -> None:
    """An episode that had been admitted all the same: most batches hold some of it, and nothing is learned."""
    core, without = started(ADAPTIVE), started(ADAPTIVE)
    for one in (core, without):
        for number in range(10, 13):
            one.admit(make_episode(number, steps=30, human=(0, 30), task="push").episode)
    core.admit(scaled(20, 1e9))
    assert trained(core, 100) > 50
    assert trained(without, 100) == 0
    push = core.spec.task_index("push")
    assert core.sampler.online_shares()[push] < 0.7, "the absurd loss pins it to the clip, 0.8"
