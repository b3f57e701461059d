from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithms import ranked
from learner.algorithms.ranked import Ranked

FLOATS = st.floats(-1.0, 1.0, width=32) | st.sampled_from([0.0, -0.0, 0.25, np.inf, -np.inf, 1e-45, 3e38])
PARTS = st.lists(st.lists(FLOATS, max_size=12), max_size=12)


@settings(deadline=None)
@given(PARTS, st.data(), st.sampled_from([0, 7, 1_000]))
def test_each_place_is_that_of_all_values_sorted_whatever_came_and_went(
    parts: list[list[float]], data: st.DataObject, least: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked, "_LEAST", least)  # merged at each question, now and then, never
        found, held = Ranked(), dict[int, np.ndarray]()
        for number, part in enumerate(parts):
            held[number] = np.array(part, np.float32)
            found.add(held[number])
            if data.draw(st.booleans()):
                found.remove(held.pop(data.draw(st.sampled_from(sorted(held)))))
            expected = np.sort(np.concatenate(list(held.values()))) if held else np.empty(0)
            assert len(found) == len(expected)
            for rank in range(len(expected)):
                assert found.at(rank) == expected[rank]
            with pytest.raises(IndexError):
                found.at(len(expected))


def test_many_values_that_come_and_go_are_ranked_as_numpy_does() -> None:
    random = np.random.default_rng(0)
    found, held = Ranked(), list[np.ndarray]()
    for round_ in range(300):
        held.append(random.normal(size=int(random.integers(1, 400))).astype(np.float32))
        found.add(held[-1])
        if round_ % 3 == 2:
            found.remove(held.pop(int(random.integers(len(held)))))
        if round_ % 20 == 0:
            values = np.concatenate(held)
            rank = int((len(values) - 1) * 0.6)
            assert found.at(rank) == np.quantile(values, 0.6, method="lower")
