"""A process of the fleet whose Kafka takes nothing ends when its time is over."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from infra.clock import ManualClock, SystemClock
from infra.settings import Settings
from producers.emulator import fleet, member
from producers.emulator.member import Ending, Robot, _drive
from producers.emulator.outbox import Wire, WireOutbox
from producers.emulator.plan import Counts, FleetPlan
from producers.robot import RobotClient
from tests.producers.emulator.test_outbox import Producer, Registry

# Reached only by a failing test.
PATIENCE = 30.0


@pytest.fixture
def pipe() -> tuple[Connection, Connection]:
    return multiprocessing.Pipe()


def test_a_full_queue_is_waited_for_no_longer_once_the_time_is_over(
    pipe: tuple[Connection, Connection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_ROOM", 0.1)
    parent, child = pipe
    plan = FleetPlan(robots=1, hz=100.0, seconds=0.1)
    ending = Ending(child)
    wire = Wire(Producer(room=0), Registry(), SystemClock(), ending)

    def fleet_of_one() -> None:
        with RobotClient(
            Settings(), "r", tmp_path, clock=ManualClock(), outbox=WireOutbox(wire), heartbeat_interval=None
        ) as client:
            _drive([Robot(client, plan, plan.episode_steps, np.random.default_rng(0))], plan, wire, ending)

    parent.send(time.monotonic())
    running = threading.Thread(target=fleet_of_one, daemon=True)
    running.start()
    running.join(PATIENCE)
    assert not running.is_alive()
    heard = []
    while parent.poll(0):
        heard.append(parent.recv())
    assert isinstance(heard[-2], Counts)
    assert (heard[-2].steps, heard[-1]) == (0, "done")


@pytest.mark.parametrize("late", [0.0, 0.45, 1.95, 2.0, 10.0])
def test_what_is_too_late_is_counted_up_to_the_fleet_s_end_and_no_further(
    late: float, pipe: tuple[Connection, Connection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = pipe
    plan = FleetPlan(robots=2, hz=10.0, seconds=2.0)
    ending = Ending(child)
    wire = Wire(Producer(), Registry(), SystemClock(), ending)
    # A clock that stands until it is waited on, and then says the time that is waited for.
    now = 100.0 + late
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def poll(seconds: float = 0.0) -> bool:
        nonlocal now
        now += seconds
        return False

    monkeypatch.setattr(child, "poll", poll)
    parent.send(100.0)
    with contextlib.ExitStack() as clients:
        robots = [
            Robot(
                clients.enter_context(
                    RobotClient(
                        Settings(),
                        name,
                        tmp_path / name,
                        clock=ManualClock(),
                        outbox=WireOutbox(wire),
                        heartbeat_interval=None,
                    )
                ),
                plan,
                plan.episode_steps,
                np.random.default_rng(0),
            )
            for name in ("a", "b")
        ]
        _drive(robots, plan, wire, ending)
    while isinstance(counts := parent.recv(), Counts):
        found = counts
    assert found.steps + found.skipped == 2 * 10 * 2
    assert (found.skipped == 0) is (late < 0.1)


class Silent:
    """A member that says nothing."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.done = False
        self.counts = Counts()
        self.told_to_stop = 0
        self.process = threading.current_thread()

    def stop(self) -> None:
        self.told_to_stop += 1


@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_that_does_not_end_by_itself_is_given_up(
    stopped: bool, pipe: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_END", 0.1)
    silent, stop = Silent(pipe[0]), threading.Event()
    if stopped:
        stop.set()
    until = time.monotonic() + (1e9 if stopped else 0.1)
    with pytest.raises(fleet.FleetFailed, match="does not end"):
        fleet._follow([silent], stop, lambda _counts: None, until)  # type: ignore[list-item]
    assert (silent.told_to_stop > 0) is stopped
