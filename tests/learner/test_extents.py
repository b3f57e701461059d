from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from learner.extents import Extents


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=80))
def test_no_row_is_handed_out_twice_and_what_is_given_back_is_used_again(moves: list[tuple[bool, int]]) -> None:
    extents, taken = Extents(), dict[int, int]()
    for give, number in moves:
        if give and taken:
            begin = sorted(taken)[number % len(taken)]
            extents.give(begin, taken.pop(begin))
        else:
            begin = extents.take(number)
            taken[begin] = number
        used = sorted(row for begin, count in taken.items() for row in range(begin, begin + count))
        assert len(used) == len(set(used))
        assert extents.end == (max(used, default=-1) + 1)
        assert extents.free == extents.end - len(used)


def test_neighbours_that_are_given_back_are_one_run() -> None:
    extents = Extents()
    begins = [extents.take(4) for _ in range(4)]
    for begin in (begins[0], begins[2], begins[1]):
        extents.give(begin, 4)
    assert extents.take(12) == 0
