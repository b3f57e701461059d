"""The whole of it, small: real servers and processes, killed on the way, gone on with, and told in a document."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.paper.frozen import QUICK
from benchmarks.paper.result import load
from tests.examples.demo.test_demo import nothing_left

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 500.0


def paper(work: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOP_")}
    command = [sys.executable, "-m", "benchmarks.paper", "--quick", "--only", "table1", "--work", str(work)]
    command += ["--document", str(work / "docs" / "paper.md"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_was_run_is_not_run_again_after_a_kill_and_the_document_tells_all_of_it(tmp_path: Path) -> None:
    work, units = tmp_path / "paper", QUICK.units(["table1"])
    base = work / "quick" / "base-2.json"
    killed = paper(work)
    try:
        until = time.monotonic() + DEADLINE
        while not list(work.glob("run-*/robots/robot-1/ledger.jsonl")):
            assert time.monotonic() < until, "the first run did not begin"
            assert killed.poll() is None, killed.communicate()[0]
            time.sleep(0.2)
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
    finally:
        killed.kill()
    assert nothing_left(work)
    made = base.stat().st_mtime_ns

    again = paper(work)
    try:
        output, _ = again.communicate(timeout=DEADLINE)
    finally:
        again.kill()
    assert again.returncode == 0, output
    assert "1 of 3 are there" in output
    assert base.stat().st_mtime_ns == made
    assert nothing_left(work)

    done = load(work / "quick", QUICK, units)
    assert set(done) == set(units)
    runs = [done[unit] for unit in units[1:]]
    assert {run.base_sha256 for run in runs} == {done[units[0]].last_sha256}
    assert len({run.last_sha256 for run in runs}) == 2  # other seeds meet other worlds
    for run in runs:
        assert [(judged.minute, judged.episodes) for judged in run.judged] == [(5.0, 4), (10.0, 4)]
        assert run.online is not None
        assert run.online.episodes >= 8
        assert run.cpu_seconds["learner"] > 0
    text = (work / "docs" / "paper.md").read_text()
    assert "2 of 2 (2 robots)" in text
    assert (work / "docs" / "paper-fleet-human.png").stat().st_size > 0
