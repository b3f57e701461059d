from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.heartbeats import told

TROUBLES = st.lists(st.text(max_size=400), max_size=12)


def test_damaged_files_and_a_sick_network_hide_no_policy_that_was_refused() -> None:
    spool = [f"a damaged spool file {number}" for number in range(20)]
    found = told(["v7 refused: its signature is wrong"], spool, ["the encoder ended with 1"])
    assert found[:3] == ("v7 refused: its signature is wrong", spool[0], "the encoder ended with 1")
    assert found[3:7] == tuple(spool[1:5])
    assert found[7:] == ("and 15 more troubles: see the robot's log",)


@given(TROUBLES, TROUBLES, TROUBLES)
def test_what_is_told_is_short_and_each_source_has_its_turn(
    policies: list[str], spool: list[str], cameras: list[str]
) -> None:
    sources = policies, spool, cameras
    found = told(*sources)
    assert len(found) == min(8, sum(map(len, sources)))
    assert all(len(trouble.encode()) <= 250 for trouble in found)
    for source in sources:
        for trouble in source[:2]:
            assert any(trouble.startswith(one) for one in found)
