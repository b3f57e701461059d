"""A control loop at a fixed rate, and what is measured in it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Timings:
    """Microseconds: how late the loop was woken, how long the work took, and how late it had then been done."""

    woken: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Of the work."""
        return float(np.percentile(self.work, share))

    def woken_late(self, share: float) -> float:
        """Percentile of the lateness that the machine and the turn before are to blame for."""
        return float(np.percentile(self.woken, share))

    @property
    def worst(self) -> float:
        """Longest work."""
        return max(self.work)

    @property
    def latest(self) -> float:
        """The loop's worst lateness, work included."""
        return max(self.late)


@contextmanager
def realtime(wanted: bool) -> Iterator[bool]:
    """Run as a robot's control loop does, before all that has no real-time priority; its children do not.

    Whether it is so: a user without the right to it (`ulimit -r`) runs like everybody.
    """
    given = False
    if wanted:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(10))
            given = True
    try:
        yield given
    finally:
        if given:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def awake() -> Iterator[None]:
    """Nothing lets a core go idle, at a priority that is below everybody's.

    A robot's control computer does that by a setting (`/dev/cpu_dma_latency`, `cpuidle.off=1`): an idle core is
    slow to come back, and under a hypervisor it is given to others, with its caches.
    """
    busy = (
        "import os\n"
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
        "parent = os.getppid()\n"
        "while os.getppid() == parent: sum(range(100_000))\n"
    )
    busied = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in busied:
            one.kill()
            one.wait()


def paced(hz: float, seconds: float, work: Callable[[], object], into: Timings) -> None:
    """Run `work` at fixed times, as a control loop does: late turns do not move the later ones."""
    period = 1.0 / hz
    start = time.perf_counter() + period
    for turn in range(int(hz * seconds)):
        due = start + turn * period
        time.sleep(max(0.0, due - time.perf_counter()))
        before = time.perf_counter()
        work()
        after = time.perf_counter()
        into.woken.append((before - due) * 1e6)
        into.work.append((after - before) * 1e6)
        into.late.append((after - due) * 1e6)
