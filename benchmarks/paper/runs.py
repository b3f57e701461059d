"""Fleets: three simulated hours on a copy of a base; the numbers come out of ClickHouse."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks.paper.judge import announced
from benchmarks.paper.parts import count_online, judge, play_online, result_of
from benchmarks.paper.program import Program, Run
from benchmarks.paper.result import Result
from benchmarks.paper.site import base_home, copy, running


def play(program: Program, run: Run, work: Path) -> Result:
    """A fleet for so many simulated hours on a copy of its base; then its versions play the fixed set.

    Raises:
        UnitFailed: it did not come to its end, or something was lost on the way.
    """
    began, home, fleet = time.monotonic(), work / f"run-{run.name}", program.settings(run)
    copy(base_home(work, program, run.base), home)
    with running(home, program.learner(run)) as site:
        site.crew.start_worker("learn")
        play_online(site, fleet, run.robots, run.seed)
        site.crew.stop_worker("learn")
        versions = announced(site.settings, fleet.policy)
        chosen = {
            number: (version.simulated_seconds or 0.0) / 60
            for number, version in sorted(versions.items())
            if number > 1 and (version.simulated_seconds or 0.0) % (program.evaluate_every * 60) == 0
        }
        judged = judge(site, fleet, chosen)
        online = count_online(site, fleet)
        hashes = versions[1].sha256, versions[max(versions)].sha256
        steps = int(site.ask("SELECT sum(step_count) FROM episodes WHERE source = 'DEMONSTRATION'")[0][0])
        result = result_of(
            site, program, run, began=began, judged=judged, steps=steps, hashes=hashes, online=online
        )
    shutil.rmtree(home)
    return result
