from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from learner.decoded import DecodedImages
from learner.frames import Room

SHAPE = (256, 256, 3)
SIZE = 256 * 256 * 3


def image(group: int, place: int) -> np.ndarray:
    return np.full(SHAPE, 10 * group + place, np.uint8)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns a hundred times as often as they usually do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
def test_what_is_read_is_whole_while_others_take_its_place(tmp_path: Path) -> None:
    kept = DecodedImages(Room(tmp_path), SIZE, 2 * SIZE)
    wrong: list[tuple[int, int]] = []
    found = [0] * 6

    def work(number: int) -> None:
        random, into = np.random.default_rng(number), np.empty(SHAPE, np.uint8)
        for _ in range(400):
            group, place = (int(n) for n in random.integers(3, size=2))
            if kept.read(group, place, into):
                found[number] += 1
                if (into != 10 * group + place).any():
                    wrong.append((group, place))
            else:
                kept.keep(group, place, image(group, place))

    with ThreadPoolExecutor(len(found)) as threads:
        list(threads.map(work, range(len(found))))
    assert wrong == []
    assert sum(found) > 0
    assert kept.nbytes == 2 * SIZE


def test_while_there_is_room_everything_is_wanted_and_then_one_in_eight(tmp_path: Path) -> None:
    kept = DecodedImages(Room(tmp_path), SIZE, 3 * SIZE + 5)
    for place in range(3):
        assert kept.wanted()
        kept.keep(7, place, image(7, place))
    assert [kept.wanted() for _ in range(16)].count(True) == 2
    into = np.empty(SHAPE, np.uint8)
    assert kept.read(7, 2, into)
    np.testing.assert_array_equal(into, image(7, 2))
    kept.keep(8, 0, image(8, 0))
    assert kept.read(8, 0, into)
    assert sum(kept.read(7, place, into) for place in range(3)) == 2
    kept.drop([7, 9])
    assert not any(kept.read(7, place, into) for place in range(3))
    assert kept.wanted()


@pytest.mark.parametrize("bound", [0, SIZE - 1])
def test_where_not_one_fits_none_is_kept(bound: int, tmp_path: Path) -> None:
    kept = DecodedImages(Room(tmp_path), SIZE, bound)
    assert not any(kept.wanted() for _ in range(20))
    kept.keep(1, 1, image(1, 1))
    assert not kept.read(1, 1, np.empty(SHAPE, np.uint8))


def test_a_disk_that_fails_costs_nothing_but_speed(tmp_path: Path) -> None:
    kept, into = DecodedImages(Room(tmp_path), SIZE, 5 * SIZE), np.empty(SHAPE, np.uint8)
    kept.keep(1, 1, image(1, 1))
    os.close(kept._file)
    kept.close.detach()
    assert not kept.read(1, 1, into)
    for _ in range(3):
        kept.keep(1, 2, image(1, 2))
    assert not kept.read(1, 2, into)
