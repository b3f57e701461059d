"""Base policies: each in a directory that runs are copied from, with its own result."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.paper.judge import announced
from benchmarks.paper.parts import count_online, demonstrate, judge, play_online, result_of
from benchmarks.paper.program import HG_DAGGER, Base, Program
from benchmarks.paper.result import Result
from benchmarks.paper.site import WHOLE, Site, UnitFailed, base_home, copy, running
from examples.metaworld.expert import TakeoverRule
from infra.files import write_atomically

_TRAIN_SECONDS = 1800.0
# Seeds of extra demonstrations are other than those of all fleets and bases.
_EXTRA = 50_000

_OUTCOMES = """
    SELECT task, countIf(success = 1), countIf(success = 0) FROM episodes
    WHERE source != 'EVALUATION' AND end = 'TERMINATED' GROUP BY task ORDER BY task"""

_NOBODY = TakeoverRule(command_gap=1e9, dropped_steps=1_000_000, overdue_share=1e6)


def make_base(program: Program, base: Base, work: Path, expected: str | None = None) -> Result:
    """Demonstrate, train version 1, and let it play the fixed set; nothing is done twice.

    `expected` is the sha256 that version 1 had before.

    Raises:
        UnitFailed: it did not come to its end, or came out other than expected.
    """
    home = base_home(work, program, base)
    if (home / WHOLE).exists():
        return Result.model_validate_json((home / WHOLE).read_text())
    make = _cloned if base.algorithm == HG_DAGGER else _labelled
    result = make(program, base, work)
    if expected is not None and result.base_sha256 != expected:
        raise UnitFailed(
            f"{base.name} comes out as {result.base_sha256}, not {expected}: is this another machine?"
        )
    write_atomically(home / WHOLE, result.model_dump_json())
    return result


def _cloned(program: Program, base: Base, work: Path) -> Result:
    """Demonstrate, train version 1, and let it play the fixed set."""
    began, home, fleet = time.monotonic(), base_home(work, program, base), program.settings(base)
    shutil.rmtree(home, ignore_errors=True)
    with running(home, program.learner(base)) as site:
        account = demonstrate(site, "teacher", fleet, program.base_seed)
        count, steps = len(account.started), account.steps
        if base.extra:
            more = replace(fleet, demonstrations_per_task=base.extra)
            account = demonstrate(site, "teacher-extra", more, _EXTRA + base.extra_seed)
            count, steps = count + len(account.started), steps + account.steps
        # An expert may fail and try again: training begins once all are there, whatever the order of arrival.
        site.configure_learner(program.learner(base) | {"SOP_LEARNER__PRETRAIN_EPISODES": str(count)})
        site.crew.start_worker("learn")
        site.wait("training the base", lambda: fleet.policy in site.lines(), _TRAIN_SECONDS)
        site.crew.stop_worker("learn")
        judged = judge(site, fleet, {1: 0.0})
        sha256 = announced(site.settings, fleet.policy)[1].sha256
        return result_of(site, program, base, began=began, judged=judged, steps=steps, hashes=(sha256, sha256))


def _labelled(program: Program, base: Base, work: Path) -> Result:
    """Let the cloned base play alone, train RECAP's version 1 on all there is, and let it play the fixed set."""
    began, home, fleet = time.monotonic(), base_home(work, program, base), program.settings(base)
    cloned = replace(base, algorithm=HG_DAGGER)
    make_base(program, cloned, work)
    copy(base_home(work, program, cloned), home)
    robots, minutes = max(program.fleets), program.rollouts
    alone = replace(program.fleet, rule=_NOBODY, minutes=minutes, interval_minutes=minutes, updates_per_interval=1)
    with running(home, alone.learner_environment(robots, program.base_seed)) as site:
        site.crew.start_worker("learn")
        play_online(site, alone, robots, _EXTRA + program.base_seed)
        site.crew.stop_worker("learn")
        count_online(site, alone)
        outcomes = judged_outcomes(site)
        # A backfill never adds to the live line, which is not its own.
        site.configure_learner(program.learner(base) | {"SOP_LEARNER__POLICY": program.fleet.policy})
        site.crew.start_command(
            "backfill",
            ["--policy", fleet.policy, "--algorithm", base.algorithm, "--steps", str(fleet.pretrain_steps)],
        )
        site.wait("training the base", site.crew.robots_done, _TRAIN_SECONDS)
        judged = judge(site, fleet, {1: 0.0})
        sha256 = announced(site.settings, fleet.policy)[1].sha256
        steps = int(site.ask("SELECT sum(step_count) FROM episodes WHERE source != 'EVALUATION'")[0][0])
        hashes = sha256, sha256
        return result_of(
            site, program, base, began=began, judged=judged, steps=steps, hashes=hashes, outcomes=outcomes
        )


def judged_outcomes(site: Site) -> dict[str, tuple[int, int]]:
    """Successes and failures by task among the episodes that a value function is fitted on.

    Raises:
        UnitFailed: there are none of one kind: it would tell nothing apart.
    """
    rows = site.ask(_OUTCOMES)
    if not sum(good for _, good, _ in rows) or not sum(bad for _, _, bad in rows):
        raise UnitFailed(f"a value function must see successes and failures; by task there are {rows}")
    return {str(task): (int(good), int(bad)) for task, good, bad in rows}
