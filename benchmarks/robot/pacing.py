"""A control loop at a fixed rate, and what is measured in it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Timings:
    """Microseconds: how long the work took, and how late the loop was when it had been done."""

    work: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Of the work."""
        return float(np.percentile(self.work, share))

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
        into.work.append((after - before) * 1e6)
        into.late.append((after - due) * 1e6)
