"""`make bench-learner`, small: all of its tables come, and it compares nothing that is not alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.learner.__main__ import main
from benchmarks.learner.in_memory import InMemory
from benchmarks.learner.made_up import FEWEST
from learner.replay import Batch

DRAWING = "The learner's loader: `make bench-learner`"
TABLES = {
    "The index in memory": 11,
    DRAWING: 6,
    "Payloads read ahead": 3,
    "The learner's loader with a camera": 9,
}
"""Title and rows of each."""
SMALL = {
    "episodes": FEWEST,
    "steps": 40,
    "state": 6,
    "action": 3,
    "batch": 16,
    "rounds": 3,
    "draws": 5,
    "read": 4,
    "index": 500,
    "videos": 1,
    "image": 32,
    "image-batch": 16,
    "image-rounds": 1,
}


def options(folder: Path, **changes: int) -> list[str]:
    found = [f"--{name}={value}" for name, value in (SMALL | changes).items()]
    return [*found, f"--data={folder}", f"--report={folder / 'report.md'}"]


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows by title, without their header."""
    found = {}
    for part in text.split("## ")[1:]:
        title, *lines = part.splitlines()
        rows = [line for line in lines if line.startswith("| ")]
        found[title] = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    return found


def test_all_tables_come_and_the_verdict_is_an_exit_code(tmp_path: Path) -> None:
    code = main(options(tmp_path))
    found = tables((tmp_path / "report.md").read_text())
    assert {title: len(rows) for title, rows in found.items()} == TABLES
    assert all(cell for rows in found.values() for row in rows for cell in row[:2])
    ratio = {row[0]: row[1].strip("*") for row in found[DRAWING]}["ratio"]
    assert code in ({0, 1} if float(ratio) >= 0.8 else {1})
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"], "nothing is left on the disk"


def test_batches_that_differ_by_one_number_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = InMemory.sample

    def other(self: InMemory, random: np.random.Generator, shares: np.ndarray) -> Batch:
        batch = drawn(self, random, shares)
        batch.actions[3, 1, 2] += 1e-3
        return batch

    monkeypatch.setattr(InMemory, "sample", other)
    with pytest.raises(AssertionError, match="not equal"):
        main(options(tmp_path, index=0, videos=0))
    assert not (tmp_path / "report.md").exists()


def test_too_few_episodes_are_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(options(tmp_path, episodes=FEWEST - 1))
    assert wrong.value.code == 2
    assert f"{FEWEST} at least" in capsys.readouterr().err
