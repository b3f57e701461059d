from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clock import ManualClock
from producers.boot import DataDir
from producers.errors import DataDirBusy


def at(milliseconds: int) -> ManualClock:
    return ManualClock(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds))


def test_first_boot_takes_the_clock(tmp_path: Path) -> None:
    assert DataDir(tmp_path).next_boot_epoch(at(1_700_000_000_123)) == 1_700_000_000_123


def test_a_clock_that_went_back_does_not_take_the_epoch_back(tmp_path: Path) -> None:
    directory = DataDir(tmp_path)
    first = directory.next_boot_epoch(at(2_000_000_000_000))
    assert directory.next_boot_epoch(at(1_000_000_000_000)) == first + 1


@settings(deadline=None)
@given(clocks=st.lists(st.integers(0, 4_000_000_000_000), min_size=1, max_size=20))
def test_epochs_only_grow_whatever_the_clock_does(
    tmp_path_factory: pytest.TempPathFactory, clocks: list[int]
) -> None:
    directory = DataDir(tmp_path_factory.mktemp("robot"))
    epochs = [directory.next_boot_epoch(at(clock)) for clock in clocks]
    directory.release()
    assert all(later > earlier for earlier, later in pairwise(epochs))
    assert all(epoch >= clock for epoch, clock in zip(epochs, clocks, strict=True))


def test_the_epoch_is_on_disk_before_it_is_returned(tmp_path: Path) -> None:
    epoch = DataDir(tmp_path).next_boot_epoch(at(5))
    assert (tmp_path / "boot_epoch").read_text() == f"{epoch}\n"


def test_a_second_client_on_the_same_directory_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    with pytest.raises(DataDirBusy, match="in use by another robot client"):
        DataDir(tmp_path)
    first.release()
    DataDir(tmp_path).release()


def test_an_unreadable_epoch_says_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "boot_epoch").write_text("garbage")
    with pytest.raises(ValueError, match="not a boot epoch; write the highest"):
        DataDir(tmp_path).next_boot_epoch(at(1))
