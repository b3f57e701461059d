"""Doing one unit, in a process of its own: a base, or a fleet on one; its numbers come out of ClickHouse."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.paper.judge import announced
from benchmarks.paper.program import HG_DAGGER, Base, Program, Run
from benchmarks.paper.result import Judged, Online, Result
from benchmarks.paper.site import WHOLE, Site, UnitFailed, copy, running
from examples.metaworld.demo import queries
from examples.metaworld.demo.accounts import Account, discrepancies
from examples.metaworld.expert import TakeoverRule
from examples.metaworld.ledger import LedgerReader
from examples.metaworld.robot import LEDGER_FILE
from examples.metaworld.settings import FleetSettings
from infra.clickhouse.client import connect
from infra.local.files import write_atomically

# Bounds, many times what a loaded machine takes.
_PLAY_SECONDS = 3 * 3600.0
_TRAIN_SECONDS = 1800.0
_ARRIVE_SECONDS = 300.0
# Seeds of extra demonstrations are other than those of all fleets and bases.
_EXTRA = 50_000

_NOBODY = TakeoverRule(command_gap=1e9, dropped_steps=1_000_000, overdue_share=1e6)

# A copied base brings the episodes of its own evaluation.
_JUDGED = """
    SELECT policy_version, task, count(), countIf(success = 1), sum(step_count) FROM episode_outcomes
    WHERE source = 'EVALUATION' AND robot_id = 'judge' AND policy = {policy:String}
      AND policy_version IN {versions:Array(Int64)}
    GROUP BY policy_version, task ORDER BY policy_version, task"""
_ONLINE = """
    SELECT count(), countIf(success = 1), countIf(success = 1 AND autonomous), sum(step_count),
           sum(human_step_count), sum(intervention_count)
    FROM episode_outcomes WHERE source = 'ONLINE' AND policy = {policy:String}"""


def base_home(work: Path, program: Program, base: Base) -> Path:
    """Directory of a base."""
    return work / f"{base.name}-{program.digest(base)[:12]}"


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
    with running(home, fleet.learner_environment(1, program.base_seed)) as site:
        account = _demonstrate(site, "teacher", fleet, program.base_seed)
        count, steps = len(account.started), account.steps
        if base.extra:
            more = replace(fleet, demonstrations_per_task=base.extra)
            account = _demonstrate(site, "teacher-extra", more, _EXTRA + base.extra_seed)
            count, steps = count + len(account.started), steps + account.steps
        # An expert may fail and try again: training begins once all are there, whatever the order of arrival.
        learner = fleet.learner_environment(1, program.base_seed)
        site.configure_learner(learner | {"SOP_LEARNER__PRETRAIN_EPISODES": str(count)})
        site.crew.start_worker("learn")
        site.wait("training the base", lambda: fleet.policy in site.lines(), _TRAIN_SECONDS)
        site.crew.stop_worker("learn")
        judged = _judge(site, fleet, {1: 0.0})
        sha256 = announced(site.settings, fleet.policy)[1].sha256
        return _result(site, program, base, began=began, judged=judged, steps=steps, hashes=(sha256, sha256))


def _labelled(program: Program, base: Base, work: Path) -> Result:
    """Let the cloned base play alone, train RECAP's version 1 on all there is, and let it play the fixed set."""
    began, home, fleet = time.monotonic(), base_home(work, program, base), program.line(base.algorithm)
    cloned = replace(base, algorithm=HG_DAGGER)
    make_base(program, cloned, work)
    copy(base_home(work, program, cloned), home)
    robots, minutes = max(program.fleets), program.rollouts
    alone = replace(program.fleet, rule=_NOBODY, minutes=minutes, interval_minutes=minutes, updates_per_interval=1)
    with running(home, alone.learner_environment(robots, program.base_seed)) as site:
        site.crew.start_worker("learn")
        _play_online(site, alone, robots, _EXTRA + program.base_seed)
        site.crew.stop_worker("learn")
        _online(site, alone)
        learner = fleet.learner_environment(robots, program.base_seed)
        # A backfill never adds to the live line, which is not its own.
        site.configure_learner(learner | {"SOP_LEARNER__POLICY": program.fleet.policy})
        site.crew.start_command(
            "backfill",
            ["--policy", fleet.policy, "--algorithm", base.algorithm, "--steps", str(fleet.pretrain_steps)],
        )
        site.wait("training the base", site.crew.robots_done, _TRAIN_SECONDS)
        judged = _judge(site, fleet, {1: 0.0})
        sha256 = announced(site.settings, fleet.policy)[1].sha256
        steps = int(site.ask("SELECT sum(step_count) FROM episodes WHERE source != 'EVALUATION'")[0][0])
        return _result(site, program, base, began=began, judged=judged, steps=steps, hashes=(sha256, sha256))


def play(program: Program, run: Run, work: Path) -> Result:
    """A fleet for so many simulated hours on a copy of its base; then its versions play the fixed set.

    Raises:
        UnitFailed: it did not come to its end, or something was lost on the way.
    """
    began, home, fleet = time.monotonic(), work / f"run-{run.name}", program.settings(run)
    copy(base_home(work, program, run.base), home)
    with running(home, fleet.learner_environment(run.robots, run.seed)) as site:
        site.crew.start_worker("learn")
        _play_online(site, fleet, run.robots, run.seed)
        site.crew.stop_worker("learn")
        versions = announced(site.settings, fleet.policy)
        chosen = {
            number: (version.simulated_seconds or 0.0) / 60
            for number, version in sorted(versions.items())
            if number > 1 and (version.simulated_seconds or 0.0) % (program.evaluate_every * 60) == 0
        }
        judged = _judge(site, fleet, chosen)
        online = _online(site, fleet)
        hashes = versions[1].sha256, versions[max(versions)].sha256
        steps = int(site.ask("SELECT sum(step_count) FROM episodes WHERE source = 'DEMONSTRATION'")[0][0])
        result = _result(site, program, run, began=began, judged=judged, steps=steps, hashes=hashes, online=online)
    shutil.rmtree(home)
    return result


def _start(site: Site, robot: str, fleet: FleetSettings, arguments: list[str], module: str = "") -> None:
    common = ["--data-dir", str(site.home / "robots" / robot), "--fleet", fleet.to_json()]
    site.crew.start_robot(robot, [*common, *arguments], module or "examples.metaworld.robot")


def _account(site: Site, robot: str) -> Account:
    return Account.of(robot, LedgerReader(site.home / "robots" / robot / LEDGER_FILE).refresh())


def _play_online(site: Site, fleet: FleetSettings, robots: int, seed: int) -> None:
    for index in range(robots):
        place = ["--index", str(index), "--robots", str(robots), "--seed", str(seed)]
        _start(site, f"robot-{index + 1}", fleet, [*place, "--phase", "online"])
    site.wait("playing", site.crew.robots_done, _PLAY_SECONDS)


def _demonstrate(site: Site, robot: str, fleet: FleetSettings, seed: int) -> Account:
    _start(site, robot, fleet, ["--seed", str(seed), "--phase", "demonstrations"])
    site.wait("demonstrating", site.crew.robots_done, _PLAY_SECONDS)
    account = _account(site, robot)
    if problems := discrepancies({robot: account}):
        raise UnitFailed("; ".join(problems))
    return account


def _judge(site: Site, fleet: FleetSettings, minutes: dict[int, float]) -> list[Judged]:
    """Let versions play the fixed set in a process of its own; `minutes` by version."""
    _start(site, "judge", fleet, ["--versions", ",".join(map(str, minutes))], "benchmarks.paper.judge")
    site.wait("evaluation", site.crew.robots_done, _PLAY_SECONDS)
    if not _account(site, "judge").closed:
        raise UnitFailed("the judge's ledger is not closed")
    rows: list[tuple[Any, ...]] = []

    def arrived() -> bool:
        rows[:] = site.ask(_JUDGED, policy=fleet.policy, versions=list(minutes))
        return sum(row[2] for row in rows) >= len(minutes) * fleet.evaluation_episodes

    site.wait("arrival of evaluations", arrived, _ARRIVE_SECONDS)
    found = []
    for version, minute in minutes.items():
        its = [row[1:] for row in rows if row[0] == version]
        found.append(
            Judged(
                minute=minute,
                version=version,
                episodes=sum(n for _, n, _, _ in its),
                successes=sum(k for _, _, k, _ in its),
                steps=sum(s for _, _, _, s in its),
                by_task={task: round(k / n, 4) for task, n, k, _ in its},
            )
        )
    if wrong := [judged.version for judged in found if judged.episodes != fleet.evaluation_episodes]:
        raise UnitFailed(f"versions {wrong} did not play the whole fixed set")
    return found


def _online(site: Site, fleet: FleetSettings) -> Online:
    """What the fleet did, once ClickHouse has all of it, and the learner too; as much as the robots say.

    Raises:
        UnitFailed: something was lost on the way.
    """
    robots = [name for name in site.crew.robots if name.startswith("robot-")]
    accounts = {robot: _account(site, robot) for robot in robots}
    if problems := discrepancies(accounts):
        raise UnitFailed("; ".join(problems))
    sent = sum(len(account.ended) for account in accounts.values())

    def found() -> Online:
        row = site.ask(_ONLINE, policy=fleet.policy)[0]
        return Online(**{name: int(value) for name, value in zip(Online.model_fields, row, strict=True)})

    def arrived() -> bool:
        client = connect(site.settings.clickhouse, analyst=True)
        try:
            return queries.unlearned(client, fleet.minutes * 60) == 0 and found().episodes >= sent
        finally:
            client.close()

    site.wait("arrival of episodes", arrived, _ARRIVE_SECONDS)
    online = found()
    if online.episodes != sent:
        raise UnitFailed(f"robots ended {sent} episodes, ClickHouse has {online.episodes}")
    return online


def _result(
    site: Site,
    program: Program,
    unit: Base | Run,
    *,
    began: float,
    judged: list[Judged],
    steps: int,
    hashes: tuple[str, str],
    online: Online | None = None,
) -> Result:
    site.meter.look()
    return Result(
        name=unit.name,
        digest=program.digest(unit),
        seed=unit.seed if isinstance(unit, Run) else unit.extra_seed,
        robots=unit.robots if isinstance(unit, Run) else 0,
        base_sha256=hashes[0],
        last_sha256=hashes[1],
        demonstration_steps=steps,
        judged=judged,
        online=online,
        wall_seconds=round(time.monotonic() - began, 1),
        cpu_seconds=site.meter.seconds(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    )
