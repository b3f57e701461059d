from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from examples.metaworld.demo import home
from infra.local import state
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


def test_only_a_stack_s_directory_is_advised_to_be_purged(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(home.DirectoryRefused) as refused:
        home.claim(tmp_path)
    assert "--purge" not in str(refused.value)
    (tmp_path / "stack.json").write_text("{}")
    with pytest.raises(home.DirectoryRefused, match=r"stack down .* --purge"):
        home.claim(tmp_path)


def test_the_advice_about_a_stack_s_directory_works_as_it_is_printed(tmp_path: Path) -> None:
    where = tmp_path / "with blank"
    where.mkdir()
    state.write(where, state.Record.starting(state.SUPERVISOR, {}))
    with pytest.raises(home.DirectoryRefused) as refused:
        home.claim(where)
    command = str(refused.value).split("`")[1]
    subprocess.run(command, shell=True, check=True, timeout=120)  # noqa: S602 - pasted, as a user would
    home.claim(where)
    assert (where / home.MARK).exists()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            home.DirectoryRefused, match=r"cannot be the data directory: .*; give the demo another"
        ):
            home.claim(path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_on_which_a_stack_runs_is_refused(tmp_path: Path) -> None:
    home.claim(tmp_path)
    state.write(tmp_path, state.Record.starting(state.SUPERVISOR, {}))
    with DirectoryLock.take(tmp_path), pytest.raises(home.DirectoryRefused, match=r"a stack runs on .*stack down"):
        home.claim(tmp_path)


def test_a_directory_on_which_another_demo_runs_is_refused_with_no_advice_to_stop_a_stack(tmp_path: Path) -> None:
    home.claim(tmp_path)
    state.write(tmp_path, state.Record.starting(state.EMBEDDED, {}))
    with DirectoryLock.take(tmp_path), pytest.raises(home.DirectoryRefused) as refused:
        home.claim(tmp_path)
    assert f"process {os.getpid()} uses" in str(refused.value)
    assert "stack down" not in str(refused.value)


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
