"""The whole thing, small: real servers, real processes, and every worker killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from examples.metaworld.demo.report import Report, broken_equalities, learned_nothing
from examples.metaworld.settings import FLEET as SETTINGS
from examples.metaworld.settings import POLICY
from infra.clickhouse.client import Client, connect
from infra.local import control
from infra.settings import load_settings
from tests.examples.demo.agreement import disagreements, examples_without_their_rows

ROOT = Path(__file__).resolve().parents[3]
FLEET = {"minutes": 20, "interval_minutes": 5, "evaluations_per_task": 2, "pretrain_steps": 300, "patience": 1800}
DEADLINE = 900.0
"""A whole demo takes a minute or so; on a busy machine more than three."""

LONG = pytest.mark.timeout(2400)


def demo(data_dir: Path, *arguments: str, minutes: float = 20) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOP_")}
    command = [sys.executable, "-m", "sop", "demo", "--data-dir", str(data_dir), *arguments]
    command += ["--plot", str(data_dir.parent / "plot.png"), "--fleet", json.dumps(FLEET | {"minutes": minutes})]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def processes(data_dir: Path, *words: str) -> list[int]:
    """Processes of this demo (by the data directory in their command or environment) whose command has `words`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        ours = str(data_dir).encode() in environment or any(str(data_dir) in word for word in command)
        if ours and all(word in command for word in words):
            found.append(int(entry.name))
    return found


def wait_until(running: subprocess.Popen[str], happened: Callable[[], bool], otherwise: str) -> None:
    """Wait for what a process does, as long as it runs."""
    until = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < until, otherwise
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.1)


def wait_until_ledgers_hold(running: subprocess.Popen[str], data_dir: Path, word: str) -> None:
    ledgers = "robots/*/ledger.jsonl"
    wait_until(
        running,
        lambda: any(word in path.read_text() for path in data_dir.glob(ledgers)),
        f"no ledger says {word!r}",
    )


def nothing_left(data_dir: Path) -> bool:
    until = time.monotonic() + 180
    while processes(data_dir):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def kept(data_dir: Path) -> Iterator[Client]:
    """The analyst's client of the servers that a demo left."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in control.environment(data_dir).items():
            patch.setenv(name, value)
        client = connect(load_settings().clickhouse, analyst=True)
    try:
        yield client
    finally:
        client.close()


def replayed(data_dir: Path, version: int) -> dict[str, str]:
    """What `sop replay` says of the servers that a demo left, by the words that a line begins with."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOP_")}
    done = subprocess.run(
        [sys.executable, "-m", "sop", "replay", "--policy", POLICY, "--version", str(version)],
        cwd=ROOT,
        env=environment | {"SOP_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, verdict = done.stdout.splitlines()
    return {line[:13].strip(): line[13:].strip() for line in lines} | {"verdict": verdict}


@pytest.mark.slow
@LONG
def test_every_episode_is_accounted_for_although_each_worker_was_killed(tmp_path: Path) -> None:
    data_dir, report = tmp_path / "sop", tmp_path / "report.json"
    running = demo(data_dir, "--robots", "2", "--seed", "1", "--report", str(report), "--keep")
    try:
        wait_until_ledgers_hold(running, data_dir, '"version":1')
        for worker in ("materialize", "index", "learn"):
            for pid in processes(data_dir, worker):
                os.kill(pid, signal.SIGKILL)
        output, _ = running.communicate(timeout=DEADLINE)
        assert running.returncode == 0, output
        assert output.count("had died and was started again") >= 3
        outcome = Report.model_validate_json(report.read_text())
        assert list(broken_equalities(outcome)) == []
        with kept(data_dir) as analyst:
            assert list(examples_without_their_rows(analyst)) == []
            assert list(disagreements(analyst, outcome, data_dir)) == []
            found = analyst.query("SELECT toString(sha256) FROM policy_versions WHERE version = 2").result_rows
        own = dict(line.split("=", 1) for line in (data_dir / "own.env").read_text().splitlines())
        assert own.pop("SOP_LEARNER__POLICY") == POLICY
        assert [name for name in own if not name.startswith("SOP_POLICIES__")] == [], "simulated time ends with it"
        # The base, and what the first online data made of it: the learner was killed in between.
        again = replayed(data_dir, 2)
        assert (again["version"], again["verdict"]) == (f"{POLICY} 2", "equal, bit for bit")
        assert [(again["published"],)] == found
        assert again["trained again"] == again["published"]
    finally:
        running.kill()
        control.down(data_dir, purge=True)
    assert outcome.policy_versions.published == outcome.policy_versions.activated_by_every_robot == 5
    assert outcome.success.evaluation_episodes == 8
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert nothing_left(data_dir)
    assert not data_dir.exists()


@pytest.mark.slow
@LONG
def test_a_fleet_of_eight_is_accounted_for(tmp_path: Path) -> None:
    robots = 8
    data_dir, report = tmp_path / "sop", tmp_path / "report.json"
    running = demo(data_dir, "--robots", str(robots), "--report", str(report), minutes=5)
    try:
        output, _ = running.communicate(timeout=DEADLINE)
    finally:
        running.kill()
    assert running.returncode == 0, output
    outcome = Report.model_validate_json(report.read_text())
    assert outcome.episodes.sent > 8 * robots
    assert outcome.policy_versions.published == outcome.policy_versions.activated_by_every_robot == 2
    assert nothing_left(data_dir)
    assert not data_dir.exists()


@pytest.mark.parametrize(("minutes", "final", "told"), [(60, 0.6, 1), (60, 0.7, 1), (60, 0.71, 0), (20, 0.6, 0)])
def test_a_fleet_of_full_length_that_does_not_get_better_is_a_failure(
    minutes: float, final: float, told: int
) -> None:
    fleet = replace(SETTINGS, minutes=minutes)
    assert len(list(learned_nothing(fleet, base=0.7, final=final))) == told


@pytest.mark.slow
@LONG
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_demo_that_is_ended_early_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    data_dir = tmp_path / "sop"
    running = demo(data_dir, "--robots", "2")
    try:
        if number == signal.SIGTERM:  # while the servers start; the others come while robots play
            wait_until(running, (data_dir / "stack.json").exists, "the servers do not start")
        else:
            wait_until_ledgers_hold(running, data_dir, "DEMONSTRATION")
        if number == signal.SIGINT:
            second = demo(data_dir)
            assert second.wait(timeout=DEADLINE) == 2  # refused, and the first one is not disturbed
        running.send_signal(number)
        running.communicate(timeout=DEADLINE)
    finally:
        running.kill()
    assert running.returncode == code
    assert nothing_left(data_dir)
