from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from producers.vectors import Layout
from schemas.events import Feature

STATE, ACTION = Feature(name="state", shape=(3,)), Feature(name="action", shape=(2, 2))
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(vector=hnp.arrays(np.float32, 3, elements=finite32))
def test_what_is_packed_can_be_read_back_bit_for_bit(vector: np.ndarray[Any, Any]) -> None:
    packed = Layout((STATE, ACTION)).pack("state", vector)
    assert np.frombuffer(packed, "<f4").tobytes() == vector.astype("<f4").tobytes()


@settings(deadline=None)
@given(vector=hnp.arrays(np.float32, (2, 2), elements=finite32))
def test_strides_and_byte_order_do_not_matter(vector: np.ndarray[Any, Any]) -> None:
    layout = Layout((STATE, ACTION))
    assert layout.pack("action", vector.T) == layout.pack("action", np.ascontiguousarray(vector.T).astype(">f4"))


def test_lists_are_taken() -> None:
    assert Layout((STATE, ACTION)).pack("state", [1, 2, 3]) == np.array([1, 2, 3], "<f4").tobytes()


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_not_finite_is_found_at_any_place_and_the_largest_numbers_are_taken(size: int, sign: int) -> None:
    layout = Layout((Feature(name="state", shape=(size,)), ACTION))
    vast = np.full(size, sign * np.finfo("<f4").max, "<f4")
    assert layout.pack("state", vast) == vast.tobytes()
    for place in {0, size // 2, size - 1}:
        for bad in (np.inf, np.nan):
            vector = np.ones(size, "<f4")
            vector[place] = np.copysign(bad, sign)
            with pytest.raises(ValueError, match=f"not finite: element {place} is"):
                layout.pack("state", vector)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.zeros(4), r"state has shape \(4,\); feature 'state' says \(3,\)"),
        (np.zeros((1, 3)), r"state has shape \(1, 3\)"),
        (0.0, r"state has shape \(\)"),
        ([1.0, float("nan"), 1.0], "state is not finite: element 1 is nan"),
        ([1.0, 1.0, float("inf")], "state is not finite: element 2 is inf"),
        ([1e39, 0, 0], "not finite: element 0"),
        (["a", "b", "c"], "state is not a vector of numbers"),
        ([[1], [1, 2], [3]], "state is not a vector of numbers"),
        (None, "state has shape"),
    ],
)
def test_a_vector_that_does_not_fit_says_why(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Layout((STATE, ACTION)).pack("state", value)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ((STATE,), "feature 'action' is missing"),
        ((ACTION,), "feature 'state' is missing"),
        ((STATE, STATE, ACTION), "given twice"),
        ((STATE, ACTION, Feature(name="wrist", dtype="uint8", shape=(4, 4, 3))), "sides are 16 to 8192"),
        ((STATE, ACTION, Feature(name="force", shape=(6,))), "unknown feature 'force'"),
        ((STATE, Feature(name="action", dtype="float64", shape=(2,))), "dtype 'float64'"),
        ((STATE, Feature(name="action", shape=())), "impossible shape"),
        ((STATE, Feature(name="action", shape=(0,))), "impossible shape"),
        ((STATE, Feature(name="action", shape=(2,), names=("x",))), "2 elements and 1 names"),
    ],
)
def test_features_that_make_no_sense_say_why(features: tuple[Feature, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Layout(features)
