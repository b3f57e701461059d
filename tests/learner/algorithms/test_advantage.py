from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learner.algorithms.advantage import n_step_advantages, rank_of
from learner.episodes import Frames

EPISODES = st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.floats(-1.0, 0.0, width=32)), max_size=40)


def frames_of(index: list[int], human: list[bool]) -> Frames:
    vectors = np.zeros((len(index), 1), np.float32)
    return Frames(np.array(index, np.int32), np.array(human, bool), vectors, vectors, vectors[:, 0])


def naive(
    index: list[int],
    human: list[bool],
    values: list[float],
    *,
    horizon: int,
    steps: int,
    ending: float | None,
) -> list[float]:
    """The paper's sum, walking from frame to frame until N steps, a takeover or the end."""
    found = []
    for start in range(len(index)):
        total, at = 0.0, start
        while True:
            if index[at] - index[start] >= steps or human[at] != human[start]:
                found.append(total + values[at] - values[start])
                break
            if at == len(index) - 1:
                found.append(total + (values[at] if ending is None else ending) - values[start])
                break
            total -= (index[at + 1] - index[at]) / horizon
            at += 1
    return found


@given(EPISODES, st.integers(1, 60), st.integers(1, 60), st.sampled_from([None, 0.0, -1.0]))
def test_advantages_are_those_of_a_walk_through_the_episode(
    steps: list[tuple[int, bool, float]], horizon: int, look_ahead: int, ending: float | None
) -> None:
    index = np.cumsum([gap for gap, *_ in steps]).tolist()
    human = [acted for _, acted, _ in steps]
    values = [value for *_, value in steps]
    found = n_step_advantages(
        frames_of(index, human), np.array(values, np.float32), horizon=horizon, steps=look_ahead, ending=ending
    )
    np.testing.assert_allclose(
        found, naive(index, human, values, horizon=horizon, steps=look_ahead, ending=ending), atol=1e-5
    )


def test_a_rescue_is_not_credited_to_the_policy() -> None:
    human = [False] * 4 + [True] * 4
    lost_then_saved = np.array([-0.5, -0.6, -0.8, -0.9, -0.9, -0.5, -0.2, -0.1], np.float32)
    found = n_step_advantages(frames_of(list(range(8)), human), lost_then_saved, horizon=8, steps=50, ending=0.0)
    assert (found[:4] < 0).all()
    whole = n_step_advantages(
        frames_of(list(range(8)), [False] * 8), lost_then_saved, horizon=100, steps=50, ending=0.0
    )
    assert (whole[:4] > 0).all()


@given(st.sets(st.floats(-1.0, 1.0), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_about_the_wanted_share_lies_above_the_advantage_of_that_rank(
    advantages: set[float], share: float
) -> None:
    values = np.array(sorted(advantages))
    threshold = values[rank_of(share, len(values))]
    assert abs((values > threshold).mean() - share) <= 1.0 / len(values) + 1e-9
    assert threshold == np.quantile(values, 1.0 - share, method="lower")
