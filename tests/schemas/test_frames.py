"""Steps ↔ ranges ↔ frames of a segment."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import FrameSegment, FramesRecorded, StepRange
from schemas.frames import INLINE_BYTES, problem, ranges_of, steps_of

SHA256 = "0f" * 32


def segment(**changes: Any) -> FrameSegment:
    whole = FrameSegment(
        sha256=SHA256, size_bytes=3, codec="h264", steps=(StepRange(first=0, last=1),), uri="s3://sop/frames/x"
    )
    return whole.model_copy(update=changes)


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_exactly_the_steps_that_they_were_made_of_and_as_few_as_can_be(steps: set[int]) -> None:
    ranges = ranges_of(sorted(steps))
    assert list(steps_of(ranges)) == sorted(steps)
    assert segment(steps=ranges).frame_count == len(steps)
    assert all(later.first > earlier.last + 1 for earlier, later in pairwise(ranges))
    assert problem(FramesRecorded(camera="wrist", segments=(segment(steps=ranges),))) is None


@given(st.lists(st.integers(0, 9), min_size=2).filter(lambda steps: steps != sorted(set(steps))))
def test_steps_that_do_not_ascend_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="comes after step"):
        ranges_of(steps)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sha256": "../../etc/passwd"}, "has sha256"),
        ({"uri": None}, "neither in one object nor in its event"),
        ({"data": b"x"}, "neither in one object nor in its event"),
        ({"uri": None, "data": bytes(INLINE_BYTES + 1)}, "more than 65536"),
        ({"steps": (StepRange(first=3, last=2),)}, "do not ascend"),
        ({"steps": (StepRange(first=0, last=4), StepRange(first=4, last=5))}, "do not ascend"),
        ({"steps": (StepRange(first=-1, last=5),)}, "do not ascend"),
        ({"steps": tuple(StepRange(first=n * 2**30, last=n * 2**30 + 2**30 - 1) for n in (0, 1))}, "numbered"),
    ],
)
def test_places_that_lead_nowhere_are_called_so(changes: dict[str, Any], text: str) -> None:
    found = problem(FramesRecorded(camera="wrist", segments=(segment(), segment(**changes))))
    assert found is not None
    assert text in found
