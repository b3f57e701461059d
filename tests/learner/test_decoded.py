from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from learner import decoded
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


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_fills_has_its_room_back_image_by_image_and_what_is_read_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DecodedImages(Room(tmp_path), SIZE, 40 * SIZE)
    for place in range(40):
        kept.keep(0, place, image(0, place))
    assert kept.nbytes == os.fstat(kept._file).st_size == 40 * SIZE
    crowded, wrong = threading.Event(), list[int]()
    monkeypatch.setattr(decoded, "_is_crowded", lambda _file: crowded.is_set())

    def work(number: int) -> None:
        random, into = np.random.default_rng(number), np.empty(SHAPE, np.uint8)
        for turn in range(600):
            if number == 0 and turn % 100 == 0:
                crowded.clear() if crowded.is_set() else crowded.set()
            place = int(random.integers(50))
            if not kept.read(0, place, into):
                kept.keep(0, place, image(0, place))
            elif (into != place).any():
                wrong.append(place)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    assert wrong == []
    crowded.set()
    for _ in range(60):
        kept.keep(1, 1, image(1, 1))
    assert (kept.nbytes, os.fstat(kept._file).st_size) == (0, 0)
    assert [kept.wanted() for _ in range(16)].count(True) == 2, "decoding whole groups would be for nothing"
    crowded.clear()
    kept.keep(1, 1, image(1, 1))
    assert kept.read(1, 1, np.empty(SHAPE, np.uint8))
    assert kept.wanted()


def test_a_disk_is_crowded_below_what_is_to_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for left, crowded in ((0, False), (2**62, True)):
        monkeypatch.setattr(decoded, "LEFT_FREE", left)
        kept = DecodedImages(Room(tmp_path), SIZE, SIZE)
        kept.keep(1, 1, image(1, 1))
        assert kept.read(1, 1, np.empty(SHAPE, np.uint8)) != crowded
