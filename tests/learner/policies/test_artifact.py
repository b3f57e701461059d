from __future__ import annotations

import numpy as np
import pytest

from learner.errors import InvalidArtifact, WeightsNotFinite
from learner.policies.artifact import pack, pack_json, unpack
from tests.learner.test_replay import SPEC

GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_neither_packed_nor_unpacked(broken: float) -> None:
    weights = {"a": GOOD, "b": np.array([0.0, broken], np.float32)}
    with pytest.raises(WeightsNotFinite, match="b is not finite"):
        pack(SPEC, weights)
    with pytest.raises(InvalidArtifact, match="b is not finite"):
        unpack(pack_json(SPEC.document(), weights))


def test_what_was_packed_is_unpacked() -> None:
    spec, weights = unpack(pack(SPEC, {"a": GOOD, "count": np.array([3], np.int64)}))
    assert spec == SPEC
    assert sorted(weights) == ["a", "count"]
    np.testing.assert_array_equal(weights["a"], GOOD)
