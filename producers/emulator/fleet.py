"""The fleet as a whole: a process per core, begun together, heard, and stopped together."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from infra.settings import Settings
from producers.emulator.member import run
from producers.emulator.plan import Counts, FleetPlan, FleetReport
from producers.errors import RobotClientError

# Seconds in which all clients are made: each waits for the disk twice.
_READY = 600.0
# After the word to stop, or the fleet's time: what is open is ended, and delivered within 30 s.
_END = 60.0
_TICK = 0.2

Told = Callable[[Counts], None]
"""Takes what was done so far."""


class FleetFailed(RobotClientError):
    """A process of the fleet ended before its time; its own output says why."""


def emulate(
    settings: Settings, plan: FleetPlan, stop: threading.Event, told: Told, folder: Path | None = None
) -> FleetReport:
    """Run the fleet until its time is over or `stop` is set.

    Args:
        settings: where Kafka and the registry are.
        plan: how many robots, and how fast.
        stop: ends it early, and cleanly.
        told: hears how it goes, some five times a second.
        folder: where the robots' directories are; by default in one that goes with the fleet.

    Raises:
        FleetFailed: a process died, or was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="sop-fleet-") as name:
        members = [_Member(settings, plan, number, folder or Path(name)) for number in range(plan.processes)]
        try:
            for member in members:
                _until_ready(member, stop)
            if stop.is_set():
                return FleetReport(plan, Counts())
            start = time.monotonic() + 0.1
            for member in members:
                member.pipe.send(start)
            _follow(members, stop, told, start + plan.seconds + _END if plan.seconds else None)
        finally:
            for member in members:
                member.end()
        return FleetReport(plan, _sum(members))


class _Member:
    """One process, as the parent sees it."""

    def __init__(self, settings: Settings, plan: FleetPlan, number: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.counts = Counts()
        self.done = False
        self.stopped = False
        self.process: BaseProcess = context.Process(
            target=run, args=(settings, plan, number, folder, other), name=f"emulator-{number}", daemon=True
        )
        self.process.start()
        other.close()  # so that its end is seen here

    def hear(self) -> object:
        """What it says next.

        Raises:
            FleetFailed: it is gone.
        """
        try:
            found: object = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            raise FleetFailed(
                f"{self.process.name} ended with exit code {self.process.exitcode}; what it wrote last says why"
            ) from None
        return found

    def stop(self) -> None:
        """Have it end."""
        if not self.stopped:
            self.stopped = True
            try:
                self.pipe.send("stop")
            except OSError:
                return  # it is gone, which is heard of

    def end(self) -> None:
        """See it gone."""
        self.pipe.close()
        self.process.join(_END if self.done else 1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _until_ready(member: _Member, stop: threading.Event) -> None:
    until = time.monotonic() + _READY
    while not stop.is_set():
        if member.pipe.poll(_TICK):
            member.hear()
            return
        if time.monotonic() > until:
            raise FleetFailed(f"{member.process.name} did not have its robots ready within {_READY:.0f} s")


def _follow(members: list[_Member], stop: threading.Event, told: Told, until: float | None) -> None:
    """Until all are done, at most until a time (monotonic seconds) or for 60 s after `stop`.

    Raises:
        FleetFailed: one of them died, or does not end.
    """
    stopped_at: float | None = None
    while waiting := [member for member in members if not member.done]:
        ready = wait([member.pipe for member in waiting], _TICK)
        for member in waiting:
            if member.pipe in ready:
                _take(member)
        told(_sum(members))
        if stop.is_set():
            for member in waiting:
                member.stop()
            stopped_at = stopped_at or time.monotonic()
            until = min(until or math.inf, stopped_at + _END)
        if until is not None and time.monotonic() > until:
            raise FleetFailed(f"{waiting[0].process.name} does not end")


def _take(member: _Member) -> None:
    said = member.hear()
    if isinstance(said, Counts):
        member.counts = said
    else:
        member.done = True


def _sum(members: list[_Member]) -> Counts:
    total = Counts()
    for member in members:
        total = total.plus(member.counts)
    return total
