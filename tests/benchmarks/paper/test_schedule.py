"""What is said before anything runs: how many units are to go, and how long that takes as far as is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper.frozen import PROGRAM
from benchmarks.paper.program import HUMAN, PRIVILEGED, Unit
from benchmarks.paper.result import Result
from benchmarks.paper.schedule import Schedule
from tests.benchmarks.paper.test_report import made_up

UNITS: list[Unit] = [PROGRAM.base, *(PROGRAM.fleet_run(2, HUMAN, seed) for seed in PROGRAM.seeds[:10])]
FIRST, SECOND = UNITS[1:3]
OTHER = PROGRAM.fleet_run(4, PRIVILEGED, 1)


def took(seconds: Mapping[Unit, float]) -> dict[Unit, Result]:
    """Results that say so."""
    return {
        unit: made_up(PROGRAM, unit, [150]).model_copy(update={"wall_seconds": wall})
        for unit, wall in seconds.items()
    }


@pytest.mark.parametrize(
    ("done", "jobs", "line"),
    [
        ({PROGRAM.base: 50.0, FIRST: 600.0, SECOND: 1200.0}, 1, "  8 to go, about 2 h 0 min"),
        ({PROGRAM.base: 50.0, FIRST: 600.0, SECOND: 1200.0}, 2, "  8 to go, about 60 min"),
        (
            {PROGRAM.base: 50.0, FIRST: 60.0, OTHER: 6000.0},
            1,
            "  9 to go, about 9 min",
        ),
        ({PROGRAM.base: 50.0, OTHER: 90.0}, 1, "  10 to go, about 15 min"),
    ],
    ids=["alone", "two at a time", "of its kind", "of another kind"],
)
def test_what_is_to_go_takes_as_long_as_its_like_took(
    done: Mapping[Unit, float], jobs: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = took(done)
    schedule = Schedule(PROGRAM, tmp_path / "results", tmp_path, [])
    assert schedule.run(UNITS, known, jobs=jobs, budget=0.0) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"{sum(unit in UNITS for unit in done)} of {len(UNITS)} are there", line]
    assert "would not fit" in said[2], "of no minutes nothing is begun"


def test_without_any_result_it_is_the_programmes_reckoning_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = replace(PROGRAM, seconds=60.0)
    assert Schedule(program, tmp_path / "results", tmp_path, []).run(UNITS, {}, jobs=1, budget=0.0) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith(f"  {len(UNITS)} to go, about {len(UNITS)} min, as the programme reckons")


def test_where_all_is_there_no_time_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = took(dict.fromkeys(UNITS, 60.0))
    assert Schedule(PROGRAM, tmp_path / "results", tmp_path, []).run(UNITS, done, jobs=1, budget=None) == 0
    assert capsys.readouterr().out == f"{len(UNITS)} of {len(UNITS)} are there\n"
