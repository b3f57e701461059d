from __future__ import annotations

import json
import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learner.checkpoint import Checkpoint
from learner.set_aside import LeftOut, SetAside
from schemas.events import EpisodeSource
from tests.learner.test_checkpoint import version

MANY = 20_000
MOST_HEADER = 2_000
"""Bytes, however many they are: as JSON in a checkpoint's header 211,000 are too many for safetensors' 100 MB."""


def left(number: int, revision: int = 1, *, odd: bool = False) -> LeftOut:
    name = f"episode {number}" if odd else str(uuid.UUID(int=(number + 1) << 64 | 0x8 << 60))
    source = EpisodeSource.ONLINE if number % 3 else EpisodeSource.DEMONSTRATION
    return LeftOut(name, revision, f"robot-{number % 7}", number % 5, source)


CHANGES = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 3), st.booleans()), max_size=40)


@given(CHANGES)
def test_what_is_left_out_is_remembered_as_a_dictionary_would_and_survives_a_dump(
    changes: list[tuple[bool, int, int, bool]],
) -> None:
    ours, theirs = SetAside(), dict[str, LeftOut]()
    for put, number, revision, odd in changes:
        one = left(number, revision, odd=odd)
        if put:
            ours.put(one)
            theirs[one.episode_id] = max(one, theirs.get(one.episode_id, one), key=lambda each: each.revision)
        else:
            ours.discard(one.episode_id)
            theirs.pop(one.episode_id, None)
        assert (one.episode_id in ours) == (one.episode_id in theirs)
    assert len(ours) == len(theirs)
    assert {each.episode_id: each for each in ours} == theirs
    names, columns = ours.dump()
    again = SetAside.load(json.loads(json.dumps(names)), columns)
    assert list(again) == list(ours)
    for name, rows in again.dump()[1].items():
        np.testing.assert_array_equal(rows, columns[name])
    other = ours.copy()
    other.put(left(99))
    assert len(other) == len(ours) + 1


def test_a_checkpoint_holds_however_many_episodes_were_left_out() -> None:
    aside = SetAside()
    for number in range(MANY):
        aside.put(left(number))
    data = Checkpoint(version(3), {}, {"a": np.arange(3)}, aside).pack()
    assert len(data) < 40 * MANY
    assert int.from_bytes(data[:8], "little") < MOST_HEADER
    read = Checkpoint.unpack(data)
    assert len(read.set_aside) == MANY
    assert next(iter(read.set_aside)) == left(0)
    assert left(MANY - 1).episode_id in read.set_aside
    assert set(read.tensors) == {"a"}
