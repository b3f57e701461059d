"""RangeSet behaves like a set of integers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumers.ranges import RangeSet

stretches = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=12
)


def expand(ranges: list[tuple[int, int]]) -> set[int]:
    return {value for first, last in ranges for value in range(first, last + 1)}


@given(stretches, st.lists(st.integers(0, 75), max_size=6))
def test_a_range_set_holds_what_was_added_and_not_discarded(
    ranges: list[tuple[int, int]], gone: list[int]
) -> None:
    ours, model = RangeSet(ranges), expand(ranges)
    for value in gone:
        ours.discard(value)
        model.discard(value)
    assert expand(list(ours)) == model
    assert [value in ours for value in range(80)] == [value in model for value in range(80)]
    assert ours.max == max(model, default=None)
    assert ours.count() == len(model)
    lasts = [last for _, last in ours]
    firsts = [first for first, _ in ours]
    assert all(first > last + 1 for first, last in zip(firsts[1:], lasts, strict=False)), "ranges touch"


@given(stretches, st.integers(0, 70), st.integers(0, 20))
def test_cover_overlap_and_count_agree_with_sets(ranges: list[tuple[int, int]], first: int, length: int) -> None:
    ours, model, last = RangeSet(ranges), expand(ranges), first + length
    wanted = set(range(first, last + 1))
    assert ours.covers(first, last) == (wanted <= model)
    assert ours.overlaps(first, last) == bool(wanted & model)
    assert ours.count(first, last) == len(wanted & model)
    assert ours.covers(first, first - 1)


@given(stretches, stretches)
def test_update_is_the_union_and_events_round_trip(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    ours = RangeSet(one)
    ours.update(RangeSet(two))
    assert expand(list(ours)) == expand(one) | expand(two)
    assert RangeSet.of(ours.as_events()) == ours


@given(stretches, stretches)
def test_difference_and_intersection_agree_with_sets(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    assert expand(list(RangeSet(one).without(RangeSet(two)))) == expand(one) - expand(two)
    assert expand(list(RangeSet(one).common(RangeSet(two)))) == expand(one) & expand(two)
