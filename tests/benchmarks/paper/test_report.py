"""The document: what has not been run is said to be missing, and stale results are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper import report
from benchmarks.paper.frozen import PROGRAM
from benchmarks.paper.program import HG_DAGGER, HUMAN, PRIVILEGED, RECAP, Base, Program, Unit
from benchmarks.paper.result import Judged, Online, Result, StaleResult, load, path_of, store


def made_up(program: Program, unit: Unit, successes: Sequence[int]) -> Result:
    by_task = {task.name: 0.75 for task in program.fleet.tasks}
    judged = [
        Judged(minute=15.0 * n, version=n + 1, episodes=200, successes=count, steps=20_000, by_task=by_task)
        for n, count in enumerate(successes, start=0 if isinstance(unit, Base) else 1)
    ]
    return Result(
        name=unit.name,
        digest=program.digest(unit),
        code="0123456789ab",
        learner=program.learner_settings(unit).model_dump(mode="json"),
        guidance=program.settings(unit).judged_guidance,
        seed=0,
        robots=0 if isinstance(unit, Base) else unit.robots,
        base_sha256="b" * 64,
        last_sha256=("b" if isinstance(unit, Base) else "c") * 64,
        demonstration_steps=5000 + (4000 if isinstance(unit, Base) and unit.extra else 0),
        judged=judged,
        online=Online(
            episodes=100,
            successes=90,
            alone=80,
            steps=90_000,
            human_steps=9000,
            interventions=30,
            labelled_steps=4100,
            online_share=(0.4, 0.52, 0.6),
        ),
        outcomes={"lift": (7, 3), "push": (9, 0)} if unit == replace(program.base, algorithm=RECAP) else None,
        wall_seconds=100.0,
        cpu_seconds={"robots": 60.0, "learner": 40.0},
        machine="a test",
    )


def test_an_empty_folder_gives_a_document_that_says_so(tmp_path: Path) -> None:
    report.write(PROGRAM, tmp_path / "results", tmp_path / "paper.md")
    text = (tmp_path / "paper.md").read_text()
    assert f"0 of {len(PROGRAM.units())} units" in text
    assert text.count("Nothing to show yet.") == 4
    assert not list(tmp_path.glob("*.png"))


def test_another_rule_is_told_beside_the_one_that_a_human_could_follow(tmp_path: Path) -> None:
    folder, document = tmp_path / "results", tmp_path / "paper.md"
    store(folder, PROGRAM.base, made_up(PROGRAM, PROGRAM.base, [120]))
    for rule, gain in ((HUMAN, 0), (PRIVILEGED, 8)):
        for seed in PROGRAM.seeds[:2]:
            run = PROGRAM.fleet_run(2, rule, seed)
            store(folder, run, made_up(PROGRAM, run, [150 + gain] * 11 + [160 + gain // 2]))
    report.write(PROGRAM, folder, document)
    told = " ".join(document.read_text().split())
    # Minute 0 is the base's own; of twelve others eleven are 4 points higher, and the last one 2.
    assert (
        "- 2 robots with this rule less with table 1a's, seed by seed (2 seeds), in points: at the end +2.0"
        in told
    )
    assert told.count("with this rule less") == 1


def test_tables_hold_what_the_results_say(tmp_path: Path) -> None:
    folder, document = tmp_path / "results", tmp_path / "paper.md"
    store(folder, PROGRAM.base, made_up(PROGRAM, PROGRAM.base, [120]))
    for seed in PROGRAM.seeds[:2]:
        for robots in PROGRAM.fleets:
            run = PROGRAM.fleet_run(robots, HUMAN, seed)
            # 60 % at first; 80 % is reached after 60 minutes by one robot, and after 60 / robots by more.
            points = [min(120 + round(10 * robots * n), 180) for n in range(1, 13)]
            store(folder, run, made_up(PROGRAM, run, points))
    report.write(PROGRAM, folder, document)
    text = document.read_text()
    assert "| 1 | 2 | 90.0 % ± 0.0 | 60 [60, 60] | 1 | 2 of 2 |" in text
    assert "| 4 | 2 | 90.0 % ± 0.0 | 15 [15, 15] | 4.0 [4.0, 4.0] | 2 of 2 |" in text
    assert "| base | 1 of 1 | 60.0 % (53 to 67) | 90 | 54 |" in text
    assert "| 4 robots reach 80 % sooner than 1 | 2.4× | 4.0× [4.0, 4.0] | 2 | shown |" in text
    assert "| 4 robots end higher than 1 | +12 | +0.0 [+0.0, +0.0] | 2 | not shown |" in text
    assert "| 60 | 80.0 % ± 0.0 | 80.0 % ± 0.0 | 80.0 % ± 0.0 |" in text  # as much data, as much success
    assert "| pick-place-v3 | 75 | 75 |" in text
    assert "2 of 10 (1 robot), 2 of 10 (2 robots), 2 of 10 (4 robots)" in text
    assert "7 of" in text
    for picture in ("paper-fleet-human.png", "paper-methods.png", "paper-bases.png"):
        assert picture in text
        assert (tmp_path / picture).stat().st_size > 0


def test_offline_data_is_set_against_what_sop_trains_on_and_recap_s_failures_are_told(tmp_path: Path) -> None:
    folder, document = tmp_path / "results", tmp_path / "paper.md"
    base = PROGRAM.base
    units: list[tuple[Unit, list[int]]] = [
        (base, [120]),
        (replace(base, algorithm=RECAP), [124]),
        (PROGRAM.fleet_run(4, HUMAN, 11), [130, 180]),
        (PROGRAM.offline_run(HG_DAGGER, 11), [150, 170]),
        (Base(base.demonstrations, PROGRAM.matched, 11), [150]),
    ]
    for unit, points in units:
        store(folder, unit, made_up(PROGRAM, unit, points))
    report.write(PROGRAM, folder, document)
    text = document.read_text()
    assert "| offline: demonstrations | 4000 | 4000 | 13800 | 75.0 % | 1 |" in text
    assert "| online: SOP's corrections | 9000 | 4100 | 13800 | 90.0 % | 1 |" in text
    assert "| SOP + HG-DAgger | 1 | 80.0 % | 9000 | - |" in text
    flat = " ".join(text.split())
    assert "SOP + HG-DAgger less offline, seed by seed: +0.0 points solved alone at work, +0 % human" in flat
    assert "of 9000 human steps of a run 4100 are in episodes that did not fail" in flat
    assert "fitted on 16 successes and 3 failures (none in push)" in flat
    assert "| 4 | 100 | 80% | 90% | 9000 (10%) | 4100 | 30 | 10800 | 0.52 (0.40 to 0.60) |" in text
    assert "Code: 0123456789ab; " in text


def test_a_result_of_other_settings_or_of_half_a_write_is_refused_by_name(tmp_path: Path) -> None:
    other = replace(PROGRAM, base_seed=PROGRAM.base_seed + 1)
    store(tmp_path, PROGRAM.base, made_up(other, PROGRAM.base, [1]))
    with pytest.raises(StaleResult, match=r"base-8\.json was made with other settings; remove it"):
        load(tmp_path, PROGRAM, [PROGRAM.base])
    path_of(tmp_path, PROGRAM.base).write_text('{"name": "base')
    with pytest.raises(StaleResult, match="remove it"):
        load(tmp_path, PROGRAM, [PROGRAM.base])


def test_a_run_that_began_with_another_base_is_refused_by_name(tmp_path: Path) -> None:
    run = PROGRAM.fleet_run(1, HUMAN, PROGRAM.seeds[0])
    store(tmp_path, PROGRAM.base, made_up(PROGRAM, PROGRAM.base, [120]))
    store(tmp_path, run, made_up(PROGRAM, run, [130]).model_copy(update={"base_sha256": "d" * 64}))
    with pytest.raises(StaleResult, match=r"fleet-1-human-seed11\.json began with another base than base-8's"):
        report.write(PROGRAM, tmp_path, tmp_path / "paper.md")


def test_the_document_is_that_of_the_results_that_are_kept(tmp_path: Path) -> None:
    """`make paper PAPER=--report-only` writes it anew."""
    root = Path(__file__).parents[3]
    report.write(PROGRAM, root / "benchmarks" / "paper" / "results", tmp_path / "paper.md")
    assert (tmp_path / "paper.md").read_text() == (root / "docs" / "paper.md").read_text()
