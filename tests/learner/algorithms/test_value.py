from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.algorithms.value import BINS, ValueFunction, bin_of
from learner.errors import InvalidArtifact
from tests.learner.synthetic import STATE
from tests.learner.test_replay import SPEC


@given(st.floats(-1.0, 0.0, width=32))
def test_a_return_falls_into_its_nearest_bin(value: float) -> None:
    centres = np.linspace(-1.0, 0.0, BINS)
    found = int(bin_of(np.array([value], np.float32))[0])
    assert abs(centres[found] - value) <= np.abs(centres - value).min() + 1e-7


def data(count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns that the first element of the state and the task decide."""
    random = np.random.default_rng(3)
    states = random.uniform(-1, 1, size=(count, STATE)).astype(np.float32)
    tasks = random.integers(2, size=count)
    returns = np.where(tasks == 0, (states[:, 0] - 1) / 2, (-states[:, 0] - 1) / 2).astype(np.float32)
    return states, tasks, returns


def test_fitted_values_follow_the_returns_of_each_task_and_stay_in_range() -> None:
    value = ValueFunction(SPEC, seed=1)
    states, tasks, returns = data()
    value.fit(states, tasks, returns, steps=400)
    for task in (0, 1):
        mine = tasks == task
        found = value.values(states[mine], task)
        assert ((found >= -1.0) & (found <= 0.0)).all()
        assert np.abs(found - returns[mine]).mean() < 0.06


def test_the_same_returns_give_the_same_value_function_and_torchs_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, other = ValueFunction(SPEC, seed=1), ValueFunction(SPEC, seed=1)
    heard: list[tuple[int, int]] = []
    one.fit(*data(), steps=20)
    other.fit(*data(), steps=20, fitting=lambda *told: heard.append(told))
    assert heard == [(step, 20) for step in range(1, 21)]
    for name, weights in one.state().items():
        np.testing.assert_array_equal(weights, other.state()[name])
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_travel_through_a_checkpoint_and_others_are_refused() -> None:
    fitted, empty = ValueFunction(SPEC, seed=1), ValueFunction(SPEC, seed=2)
    fitted.fit(*data(), steps=20)
    empty.load_state(fitted.state())
    states = data()[0]
    np.testing.assert_array_equal(fitted.values(states, 0), empty.values(states, 0))
    with pytest.raises(InvalidArtifact, match=r"value\.0\.weight"):
        empty.load_state({})
