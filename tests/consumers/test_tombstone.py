"""Tombstones are named by what they say, and say it in few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.audit.announced import episode_of
from consumers.episode import OpenEpisode
from consumers.records import Origin
from consumers.tombstone import Tombstone, TombstoneUnreadable, is_tombstone, read_tombstone, tombstone_of

EPISODE = OpenEpisode("018bcfe5-6800-7000-8000-000000000001", "robot-1", 7)

places = st.builds(
    Origin,
    topic=st.sampled_from(["robot-steps", "robot-episodes"]),
    partition=st.just(2),
    offset=st.integers(0, 30),
    appended_ms=st.integers(0, 10**13),
    key=st.none(),
    value=st.none(),
)
records = st.dictionaries(st.integers(0, 30), places, min_size=1, max_size=20)


@given(records)
def test_every_event_comes_back_with_its_place(buried: dict[int, Origin]) -> None:
    tombstone = tombstone_of(EPISODE, buried)
    wanted = {(sequence, (o.topic, o.partition, o.offset)) for sequence, o in buried.items()}
    assert set(tombstone.events()) == wanted
    assert len(list(tombstone.events())) == len(wanted)
    assert read_tombstone(tombstone.key, tombstone.data) == tombstone
    assert tombstone.appended_ms == min(o.appended_ms for o in buried.values())
    spans = {part.topic: (part.first, part.last) for part in tombstone.source_offsets()}
    assert all(spans[o.topic][0] <= o.offset <= spans[o.topic][1] for o in buried.values())
    half = dict.fromkeys(("robot-steps", "robot-episodes"), 15)
    assert set(tombstone.settled(half)) == {event for event in wanted if event[1][2] < 15}


def test_neighbours_are_one_run_and_the_same_events_have_the_same_name() -> None:
    buried = {5 + n: Origin("robot-steps", 0, 100 + n, 9, None, None) for n in range(4)}
    tombstone = tombstone_of(EPISODE, buried)
    assert [(run.sequence, run.offset, run.count) for run in tombstone.runs] == [(5, 100, 4)]
    assert tombstone_of(EPISODE, dict(reversed(buried.items()))).key == tombstone.key
    assert is_tombstone(tombstone.key)
    assert episode_of(tombstone.key) is None, "it is no payload"


@pytest.mark.parametrize("data", [b"", b"{}", b"no json"])
def test_what_is_no_tombstone_is_refused(data: bytes) -> None:
    with pytest.raises(TombstoneUnreadable):
        read_tombstone("episodes/e/buried-0.json", data)


def test_a_tombstone_with_another_ones_name_is_refused() -> None:
    one, other = (tombstone_of(EPISODE, {n: Origin("robot-steps", 0, n, 9, None, None)}) for n in (1, 2))
    assert isinstance(one, Tombstone)
    with pytest.raises(TombstoneUnreadable, match="those of"):
        read_tombstone(other.key, one.data)


@pytest.mark.parametrize(
    "key",
    ["episodes/e/buried-0.json", "episodes/e/1-" + "0" * 64 + ".parquet", "other/e/buried-" + "0" * 64 + ".json"],
)
def test_other_objects_are_not_taken_for_tombstones(key: str) -> None:
    assert not is_tombstone(key)
