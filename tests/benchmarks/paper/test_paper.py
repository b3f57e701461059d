"""The whole of it, small: real servers and processes, killed on the way, gone on with, and told in a document."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper.frozen import QUICK
from benchmarks.paper.program import HUMAN, RECAP, Base, Run
from benchmarks.paper.result import Result, load
from tests.examples.demo.test_demo import nothing_left, processes, wait_until

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 1200.0


def paper(work: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOP_")}
    command = [sys.executable, "-m", "benchmarks.paper", "--quick", "--work", str(work), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def finished(work: Path, *arguments: str, deadline: float = DEADLINE) -> str:
    """What it printed, once it has ended well and has left nothing running."""
    running = paper(work, *arguments)
    try:
        output, _ = running.communicate(timeout=deadline)
    finally:
        running.kill()
    assert running.returncode == 0, output
    assert nothing_left(work)
    return output


def check_run(run: Result) -> None:
    assert run.online is not None
    assert run.online.episodes >= 8
    assert run.online.labelled_steps <= run.online.human_steps
    assert run.cpu_seconds["learner"] > 0
    assert run.code


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_what_was_run_is_not_run_again_after_a_kill_and_the_document_tells_all_of_it(tmp_path: Path) -> None:
    work = tmp_path / "paper"
    table1 = ["--only", "table1", "--seeds", "1..1", "--document", str(work / "docs" / "paper.md")]
    base = work / "quick" / "base-2.json"
    killed = paper(work, *table1)
    try:
        wait_until(
            killed,
            lambda: any(processes(home, "--robot-id") for home in work.glob("run-*")),
            "the first run did not begin",
        )
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
    finally:
        killed.kill()
    assert nothing_left(work)
    made = base.stat().st_mtime_ns

    assert "1 of 2 are there" in finished(work, *table1)
    assert base.stat().st_mtime_ns == made
    run = QUICK.fleet_run(2, HUMAN, 1)
    done = load(work / "quick", QUICK, [QUICK.base, run])
    assert done[run].base_sha256 == done[QUICK.base].last_sha256
    assert [(judged.minute, judged.episodes) for judged in done[run].judged] == [(5.0, 4), (10.0, 4)]
    check_run(done[run])
    assert done[run].learner["mixing"] == "adaptive"
    text = (work / "docs" / "paper.md").read_text()
    assert "1 of 2 (2 robots)" in text
    assert (work / "docs" / "paper-fleet-human.png").stat().st_size > 0


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_each_kind_of_unit_of_all_three_tables_comes_to_its_end(tmp_path: Path) -> None:
    work, units = tmp_path / "paper", QUICK.units()
    finished(work, "--document", str(work / "docs" / "paper.md"), deadline=2400.0)
    done = load(work / "quick", QUICK, units)
    assert set(done) == set(units)
    labelled = done[replace(QUICK.base, algorithm=RECAP)]
    assert labelled.outcomes is not None
    assert sum(failures for _, failures in labelled.outcomes.values()) > 0
    assert sum(successes for successes, _ in labelled.outcomes.values()) > 0
    assert labelled.guidance == QUICK.fleet.judged_guidance > 1.0
    runs = {unit: done[unit] for unit in units if isinstance(unit, Run)}
    for unit, run in runs.items():
        check_run(run)
        assert run.base_sha256 == done[unit.base].last_sha256
        assert run.learner["mixing"] == ("adaptive" if unit.sop else "fixed")
    assert len({run.last_sha256 for run in runs.values()}) == len(runs)  # other seeds meet other worlds
    offline = done[QUICK.offline_run(RECAP, 1)]
    assert [judged.minute for judged in offline.judged] == [5.0, 10.0]
    more = done[Base(QUICK.base.demonstrations, QUICK.matched, 1)]
    assert more.demonstration_steps > done[QUICK.base].demonstration_steps
    assert more.learner["pretrain_steps"] == QUICK.fleet.pretrain_steps + QUICK.online_updates
    text = (work / "docs" / "paper.md").read_text()
    assert f"{len(units)} of {len(units)} units" in text
    assert "Nothing to show yet." not in text
    assert "| offline: demonstrations |" in text
