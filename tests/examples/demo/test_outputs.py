"""The demo's files are looked at before it begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.metaworld.demo import outputs


def test_a_place_that_can_be_written_is_taken_and_nothing_is_left_there(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    for name in ("new.json", "deep/er/new.json", "old.json"):
        outputs.check("--report", tmp_path / name, tmp_path / "sop")
    assert {path.name for path in tmp_path.rglob("*")} == {"deep", "er", "old.json"}
    assert (tmp_path / "old.json").read_text() == "old"


@pytest.mark.parametrize("name", ["file/report.json", "folder", "sop/report.json", "link/report.json"])
def test_a_place_that_cannot_be_written_or_would_be_removed_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "sop").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "sop")
    with pytest.raises(outputs.OutputRefused, match=rf"^--report {tmp_path / name} (cannot be written|lies in)"):
        outputs.check("--report", tmp_path / name, tmp_path / "sop")


@pytest.mark.parametrize("option", ["--report", "--plot", "--data-dir"])
def test_the_demo_refuses_at_once_in_one_line_with_exit_code_2(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "sop", "demo", option, str(tmp_path / "file" / "below")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert not (tmp_path / ".sop").exists()
