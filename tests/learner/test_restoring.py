from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from learner.restoring import Obeyed, past_of, tip_of
from schemas.events import PolicyVersion
from tests.producers.fakes import announcement


def published(*parents: int | None) -> dict[int, PolicyVersion]:
    """Version n has the n-th of these as its parent."""
    return {n: announcement(n, b"%d" % n, parent_version=parent) for n, parent in enumerate(parents, start=1)}


def test_without_a_rollback_the_newest_goes_on() -> None:
    versions = published(None, 1, 2)
    assert tip_of(versions, Obeyed()) == 3
    assert list(past_of(versions, 3)) == [3, 2, 1]
    assert tip_of({}, Obeyed()) == 0
    assert past_of({}, 0) == {}


def test_after_a_rollback_what_was_given_up_is_no_ancestor() -> None:
    versions = published(None, 1, 2, 3, 4)
    obeyed = Obeyed(generation=7, version=2, newest=5)
    assert tip_of(versions, obeyed) == 2
    assert list(past_of(versions, 2)) == [2, 1]
    later = published(None, 1, 2, 3, 4, 2, 6)
    assert tip_of(later, obeyed) == 7
    assert list(past_of(later, 7)) == [7, 6, 2, 1]


@given(st.data())
def test_the_past_is_a_chain_of_parents(data: st.DataObject) -> None:
    parents = [None, *(data.draw(st.integers(1, n)) for n in range(1, data.draw(st.integers(1, 8))))]
    versions = published(*parents)
    past = list(past_of(versions, len(parents)).values())
    assert [version.parent_version for version in past] == [*(version.version for version in past[1:]), None]
