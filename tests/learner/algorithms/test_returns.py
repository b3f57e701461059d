from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.algorithms.returns import horizons, monte_carlo_returns, outcome
from schemas.events import EpisodeEnd
from tests.learner.synthetic import make_episode

INDICES = st.sets(st.integers(0, 60), min_size=1, max_size=40).map(sorted)


def naive(index: list[int], *, success: bool, horizon: int, penalty: float) -> list[float]:
    """Reward by reward, also those of steps that were lost."""
    found = []
    for first in index:
        total = 0.0
        for step in range(first, index[-1] + 1):
            total += -1.0 if step < index[-1] else (0.0 if success else -penalty * horizon)
        found.append(min(0.0, max(-1.0, total / horizon)))
    return found


@given(INDICES, st.booleans(), st.integers(1, 80), st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_returns_are_the_sums_of_the_rewards_clipped(
    index: list[int], success: bool, horizon: int, penalty: float
) -> None:
    returns = monte_carlo_returns(
        np.array(index, np.int32), success=success, horizon=horizon, failure_penalty=penalty
    )
    assert returns.dtype == np.float32
    np.testing.assert_allclose(returns, naive(index, success=success, horizon=horizon, penalty=penalty), atol=1e-6)
    assert ((returns >= -1.0) & (returns <= 0.0)).all()


def test_an_episode_without_frames_has_no_returns() -> None:
    assert len(monte_carlo_returns(np.empty(0, np.int32), success=True, horizon=5, failure_penalty=1.0)) == 0


@pytest.mark.parametrize("end", EpisodeEnd)
@pytest.mark.parametrize("success", [True, False, None])
def test_only_what_terminated_with_known_success_has_an_outcome(end: EpisodeEnd, success: bool | None) -> None:
    record = make_episode(1, success=success).record.model_copy(update={"end": end})
    assert outcome(record) == (success if end is EpisodeEnd.TERMINATED else None)


def test_the_horizon_is_the_longest_episode_of_each_task() -> None:
    made = [make_episode(n, task="push", steps=steps).episode for n, steps in enumerate((7, 12, 9))]
    assert horizons(made, ("lift", "push")).tolist() == [0, 12]
