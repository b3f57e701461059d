"""The emulated fleet on real servers: what it says it sent is what is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.local.stack import Stack
from infra.settings import Settings
from schemas.events import EpisodeBoundary, EpisodeEnded, Heartbeat, RobotEvent, Step
from schemas.topics import ROBOT_STATUS
from tests.producers.integration.conftest import DEADLINE, once, read


def command(prefix: str, *options: str) -> list[str]:
    sop = str(Path(sys.executable).with_name("sop"))
    return [sop, "fleet-emulator", "--prefix", prefix, "--robots", "4", "--processes", "2", *options]


def names(prefix: str) -> list[str]:
    return [f"{prefix}-{number:05d}" for number in range(4)]


def check(settings: Settings, prefix: str) -> tuple[int, int]:
    """Nothing is missing; steps and episodes."""
    steps = episodes = 0
    for robot_id in names(prefix):
        events: list[RobotEvent] = once(settings, robot_id)
        assert [event.sequence for event in events] == list(range(len(events)))
        last = events[-1]
        assert isinstance(last, EpisodeBoundary)
        assert isinstance(last.body, EpisodeEnded)
        steps += sum(isinstance(event, Step) for event in events)
        episodes += sum(isinstance(e, EpisodeBoundary) and isinstance(e.body, EpisodeEnded) for e in events)
        found = [event for _, event in read(settings, robot_id, ROBOT_STATUS)]
        assert any(isinstance(beat, Heartbeat) for beat in found)
    return steps, episodes


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def test_what_the_fleet_says_it_sent_is_in_kafka(settings: Settings, stack: Stack, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = subprocess.run(
        command("timed", "--hz", "20", "--seconds", "2", "--episode-steps", "12", "--json", str(result)),
        env=os.environ | stack.environment(),
        timeout=3 * DEADLINE,
        check=False,
    )
    found = json.loads(result.read_text())
    kept = found["steps_skipped"] <= 0.01 * (found["steps"] + found["steps_skipped"])
    assert done.returncode == (0 if kept else 1)
    assert found["steps"] + found["steps_skipped"] == 4 * 20 * 2
    assert (found["unacknowledged"], found["refused"]) == (0, 0)
    assert check(settings, "timed") == (found["steps"], found["episodes"])


def test_a_signal_ends_open_episodes_and_delivers_them(settings: Settings, stack: Stack) -> None:
    fleet = subprocess.Popen(
        command("ended", "--hz", "10"), env=os.environ | stack.environment(), stderr=subprocess.PIPE, text=True
    )
    assert fleet.stderr is not None
    for line in fleet.stderr:
        if "steps/s" in line:
            break
    fleet.send_signal(signal.SIGTERM)
    fleet.communicate(timeout=DEADLINE)
    assert fleet.returncode in {0, 1}, "1 where the machine was too slow"
    steps, episodes = check(settings, "ended")
    assert steps > 0
    assert episodes == 4


def test_no_process_outlives_the_command(stack: Stack) -> None:
    fleet = subprocess.Popen(
        command("orphans", "--hz", "10"), env=os.environ | stack.environment(), stderr=subprocess.PIPE, text=True
    )
    assert fleet.stderr is not None
    for line in fleet.stderr:
        if "steps/s" in line:
            break
    children = psutil.Process(fleet.pid).children(recursive=True)
    assert len(children) >= 2
    fleet.kill()
    fleet.wait(DEADLINE)
    until = time.monotonic() + DEADLINE
    while any(map(lives, children)):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_wrong_name_is_wrong_use(stack: Stack) -> None:
    done = subprocess.run(
        command("no spaces"),
        env=os.environ | stack.environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert "prefix" in done.stderr
