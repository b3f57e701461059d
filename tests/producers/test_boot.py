from __future__ import annotations

import errno
import os
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clock import ManualClock
from producers.boot import DataDir
from producers.errors import DataDirBusy, SpoolFull
from tests.producers.fakes import MEMORY


def at(milliseconds: int) -> ManualClock:
    return ManualClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds))


def test_first_boot_takes_the_clock(tmp_path: Path) -> None:
    assert DataDir(tmp_path).next_boot_epoch(at(1_700_000_000_123)) == 1_700_000_000_123


def test_a_clock_that_went_back_does_not_take_the_epoch_back(tmp_path: Path) -> None:
    directory = DataDir(tmp_path)
    first = directory.next_boot_epoch(at(2_000_000_000_000))
    assert first < directory.next_boot_epoch(at(1_000_000_000_000)) <= first + 1_000


def test_two_robots_with_one_disk_and_no_clock_hardly_ever_take_the_same_epoch(tmp_path: Path) -> None:
    epochs = set()
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "boot_epoch").write_text("1700000000000\n")
        directory = DataDir(tmp_path / str(number))
        epochs.add(directory.next_boot_epoch(at(0)))
        directory.release()
    assert len(epochs) > 10, "20 of 1,000 are 19.8 different ones on average"


@settings(deadline=None)
@given(clocks=st.lists(st.integers(0, 4_000_000_000_000), min_size=1, max_size=20))
def test_epochs_only_grow_whatever_the_clock_does(clocks: list[int]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        directory = DataDir(Path(name))
        epochs = [directory.next_boot_epoch(at(clock)) for clock in clocks]
        directory.release()
    assert all(later > earlier for earlier, later in pairwise(epochs))
    assert all(epoch >= clock for epoch, clock in zip(epochs, clocks, strict=True))


def test_the_epoch_is_on_disk_before_it_is_returned(tmp_path: Path) -> None:
    epoch = DataDir(tmp_path).next_boot_epoch(at(5))
    assert (tmp_path / "boot_epoch").read_text() == f"{epoch}\n"


def test_a_second_client_on_the_same_directory_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    with pytest.raises(DataDirBusy, match=rf"in use by another robot client \(process {os.getpid()}\)"):
        DataDir(tmp_path)
    first.release()
    DataDir(tmp_path).release()


def test_an_unreadable_epoch_says_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "boot_epoch").write_text("garbage")
    with pytest.raises(ValueError, match="not a boot epoch; write the highest"):
        DataDir(tmp_path).next_boot_epoch(at(1))


def test_on_a_full_disk_a_start_uses_what_was_kept_for_it_and_what_an_episode_that_was_killed_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = DataDir(tmp_path)
    first.keep_room()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "reserve").write_bytes(bytes(4096))
    first.release()
    kept = [tmp_path / "boot-room", tmp_path / "spool" / "reserve"]
    assert all(file.stat().st_size >= 4096 for file in kept)

    def full(path: Path, content: str) -> None:
        if any(file.stat().st_size for file in kept):
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_text(content)

    monkeypatch.setattr("producers.boot.write_atomically", full)
    directory = DataDir(tmp_path)
    with pytest.raises(SpoolFull, match=r"is full: .* needs 512 KiB to start.*Free so much"):
        directory.next_boot_epoch(at(5))
    directory.give_room()
    assert directory.next_boot_epoch(at(5)) >= 5
    directory.release()


def test_where_little_is_left_nothing_is_kept_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DataDir(tmp_path)
    monkeypatch.setattr("producers.boot._PLENTY", 2**62)
    directory.keep_room()
    assert not (tmp_path / "boot-room").exists()
    directory.release()


def test_a_lock_whose_process_is_gone_says_that_another_one_holds_it(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    (tmp_path / "lock").write_text(f"{gone}\n")
    with pytest.raises(DataDirBusy, match=f"process {gone}, which is gone: one that it started still holds it"):
        DataDir(tmp_path)
    first.release()
