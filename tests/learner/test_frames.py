from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from infra.errors import DiskFull
from learner.frames import FACTS, Column, FrameStore, Room
from learner.kept import KeptEpisodes, keep_all
from schemas.events import EpisodeSource
from tests.learner.synthetic import make_episode


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses writes beyond; as with a full disk, whatever was written stays."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rows(count: int, width: int, value: float) -> np.ndarray:
    return np.full((count, width), value, np.float32)


def test_rows_are_read_as_they_were_written_while_the_files_grow(tmp_path: Path) -> None:
    store = FrameStore(3, 2, Room(tmp_path))
    begins = [store.add(rows(700, 3, n), rows(700, 2, -n), np.full(700, n, FACTS)) for n in range(20)]
    for n, begin in enumerate(begins):
        assert (store.states[begin : begin + 700] == n).all()
        assert (store.actions[begin : begin + 700] == -n).all()
        assert (store.facts["left"][begin : begin + 700] == n).all()
    assert list(tmp_path.iterdir()) == [], "the files have no name, and go with the process"


def test_room_that_is_given_back_is_written_over(tmp_path: Path) -> None:
    store = FrameStore(3, 2, Room(tmp_path))
    for n in range(200):
        begin = store.add(rows(50, 3, n), rows(50, 2, n), np.zeros(50, FACTS))
        assert (store.states[begin : begin + 50] == n).all()
        store.remove(begin, 50)
    assert store.end == 0


def test_a_full_disk_is_said_or_waited_for_and_nothing_is_half_added(tmp_path: Path) -> None:
    told: list[DiskFull] = []

    def full(error: DiskFull) -> None:
        told.append(error)
        raise error

    store = FrameStore(64, 2, Room(tmp_path, full))
    store.add(rows(10, 64, 1.0), rows(10, 2, 1.0), np.zeros(10, FACTS))
    size = 4096 * 64 * 4
    with files_of_at_most(size), pytest.raises((DiskFull, OSError)):
        store.add(rows(9000, 64, 2.0), rows(9000, 2, 2.0), np.zeros(9000, FACTS))
    assert store.end == 10
    assert (store.states[:10] == 1.0).all()
    assert all("SOP_CACHE__DIRECTORY" in str(error) for error in told)


def test_writing_goes_on_where_it_stopped_once_there_is_room(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    waits: list[DiskFull] = []

    def full(error: DiskFull) -> None:
        waits.append(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    room = Room(tmp_path, full)
    file = room.file()
    data = np.arange(5000, dtype=np.uint8)
    with files_of_at_most(1000):
        room.write(file, data.data, 0)
    assert len(waits) == 1
    assert os.pread(file, 6000, 0) == data.tobytes()
    os.close(file)


def test_vectors_without_an_element_have_rows_all_the_same(tmp_path: Path) -> None:
    column = Column(Room(tmp_path), np.float32, 0)
    column.write(0, np.empty((5, 0), np.float32))
    assert column.rows[:5].shape == (5, 0)


def test_kept_episodes_come_back_one_by_one_in_any_order(tmp_path: Path) -> None:
    made = [make_episode(n, steps=5 + n, state=6 + n % 2) for n in range(6)]
    made.append(make_episode(9, steps=8, source=EpisodeSource.DEMONSTRATION))
    kept = KeptEpisodes(Room(tmp_path))
    numbers = [kept.keep(item.episode) for item in made]
    assert len(kept) == len(made)
    for episode, item in zip(kept.chosen(numbers[::-1]), made[::-1], strict=True):
        assert episode.record == item.record
        for name in ("index", "human", "states", "actions", "rewards"):
            found, wanted = getattr(episode.frames, name), getattr(item.episode.frames, name)
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
    again = keep_all((item.episode for item in made), Room(tmp_path))
    assert [episode.record for episode in again] == [item.record for item in made]
    assert again[1:3][0].record == made[1].record
