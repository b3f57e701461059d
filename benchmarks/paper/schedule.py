"""Which unit is next, in a process of its own; progress, and how long it will take."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen

from benchmarks.paper.program import HG_DAGGER, Base, Program, Unit
from benchmarks.paper.result import Result, load
from infra.local import process

_ROOT = Path(__file__).resolve().parents[2]
_LOOK_SECONDS = 0.5
_LOG_LINES = 12


@dataclass
class _Running:
    unit: Unit
    process: Popen[bytes]
    began: float


class Schedule:
    """Runs units one or several at a time; none outlives this process."""

    def __init__(
        self,
        program: Program,
        results: Path,
        work: Path,
        arguments: Sequence[str],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """`arguments`: options that a unit's process is given. `ended` is called after each unit."""
        self._program = program
        self._results = results
        self._work = work
        self._arguments = list(arguments)
        self._after = ended

    def run(self, units: Sequence[Unit], done: Mapping[Unit, Result], *, jobs: int, budget: float | None) -> int:
        """Run those that have no result; bases before what needs them. 1 if any failed.

        Args:
            units: in the order in which they are wanted.
            done: results that there are.
            jobs: how many at a time.
            budget: minutes; nothing is begun that would not fit.
        """
        (self._work / "logs").mkdir(parents=True, exist_ok=True)
        began, known = time.monotonic(), dict(done)
        left = [unit for unit in units if unit not in known]
        print(f"{len(units) - len(left)} of {len(units)} are there", flush=True)
        if left:
            self._tell(left, [], known, jobs)
        running: list[_Running] = []
        failed = 0
        try:
            while left or running:
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    failed += not self._ended(one, known)
                    self._after()
                    self._tell(left, running, known, jobs)
                while left and len(running) < jobs and self._may_begin(left[0], running):
                    needs = self._estimate(left[0], known)
                    if budget is not None and time.monotonic() - began + needs > budget * 60:
                        print(f"{left[0].name} takes about {needs / 60:.0f} min and would not fit", flush=True)
                        left = []
                        break
                    running.append(self._begin(left.pop(0)))
                time.sleep(_LOOK_SECONDS)
        finally:
            process.stop([one.process for one in running], patience=30.0)
        return 1 if failed else 0

    def _may_begin(self, unit: Unit, running: Sequence[_Running]) -> bool:
        """Two units must not make the same base at the same time; RECAP's is made from the other."""
        bases = [_cloned(one.unit) for one in running]
        mine = unit if isinstance(unit, Base) else unit.base
        return _cloned(unit) not in bases or self._whole(mine)

    def _whole(self, base: Base) -> bool:
        from benchmarks.paper.site import WHOLE, base_home  # noqa: PLC0415 - loads the pipeline's packages

        return (base_home(self._work, self._program, base) / WHOLE).exists()

    def _begin(self, unit: Unit) -> _Running:
        print(f"{time.strftime('%H:%M:%S')} {unit.name} …", flush=True)
        command = [sys.executable, "-m", "benchmarks.paper", "--unit", unit.name, *self._arguments]
        log = self._log(unit)
        log.unlink(missing_ok=True)
        started = process.spawn(command, environment=dict(os.environ), log=log, cwd=_ROOT)
        return _Running(unit, started, time.monotonic())

    def _ended(self, one: _Running, known: dict[Unit, Result]) -> bool:
        seconds = time.monotonic() - one.began
        known |= load(self._results, self._program, [one.unit])
        if one.process.returncode == 0 and one.unit in known:
            last = known[one.unit].last
            print(f"{one.unit.name}: {last.success:.1%} at minute {last.minute:.0f} ({seconds:.0f} s)", flush=True)
            return True
        tail = self._log(one.unit).read_text(errors="replace").splitlines()[-_LOG_LINES:]
        print("\n".join([f"{one.unit.name} FAILED ({one.process.returncode}), {self._log(one.unit)}:", *tail]))
        return False

    def _tell(
        self, left: Sequence[Unit], running: Sequence[_Running], known: dict[Unit, Result], jobs: int
    ) -> None:
        ahead = sum(self._estimate(unit, known) for unit in [*left, *(one.unit for one in running)]) / jobs
        whence = "" if known else ", as the programme reckons: no result says how long one takes"
        print(f"  {len(left) + len(running)} to go, about {_duration(ahead)}{whence}", flush=True)

    def _estimate(self, unit: Unit, known: Mapping[Unit, Result]) -> float:
        """Wall seconds: the median of its like, or of all, or what the programme says."""
        like = [r.wall_seconds for other, r in known.items() if _kind(other) == _kind(unit)]
        anything = [r.wall_seconds for other, r in known.items() if not isinstance(other, Base)]
        return statistics.median(like or anything or [self._program.seconds])

    def _log(self, unit: Unit) -> Path:
        return self._work / "logs" / f"{unit.name}.log"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _cloned(unit: Unit) -> Base:
    return replace(unit if isinstance(unit, Base) else unit.base, algorithm=HG_DAGGER)


def _kind(unit: Unit) -> object:
    return Base if isinstance(unit, Base) else (unit.robots, unit.interval_minutes)
