from __future__ import annotations

from pathlib import Path

import pytest

from examples.metaworld.demo import home
from infra.local.state import DirectoryLock


def test_a_new_directory_is_made_and_marked(tmp_path: Path) -> None:
    home.claim(tmp_path / "new" / ".sop")
    assert (tmp_path / "new" / ".sop" / home.MARK).exists()


def test_what_an_earlier_demo_left_is_removed(tmp_path: Path) -> None:
    home.claim(tmp_path)
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "log").write_text("old")
    (tmp_path / "demo.env").write_text("old")
    home.claim(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {home.MARK, "lock"}


def test_data_that_no_demo_made_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(home.DirectoryRefused, match="holds data that no demo made"):
        home.claim(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"precious"}


def test_a_directory_on_which_a_stack_runs_is_refused(tmp_path: Path) -> None:
    home.claim(tmp_path)
    with DirectoryLock.take(tmp_path), pytest.raises(home.DirectoryRefused, match="a stack runs on"):
        home.claim(tmp_path)


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    home.claim(tmp_path / "demo")
    (tmp_path / "demo" / "link").symlink_to(outside)
    home.claim(tmp_path / "demo")
    assert (outside / "precious").exists()
    assert not (tmp_path / "demo" / "link").exists()


def test_only_a_demo_s_directory_is_removed(tmp_path: Path) -> None:
    home.claim(tmp_path / "demo")
    (tmp_path / "other").mkdir()
    home.remove(tmp_path / "demo")
    home.remove(tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"other"}
