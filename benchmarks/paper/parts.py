"""What units consist of: robots that play, the judge, and counting what arrived."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.paper.program import Base, Program, Run
from benchmarks.paper.result import Judged, Online, Result
from benchmarks.paper.site import Site, UnitFailed
from examples.metaworld.demo import queries
from examples.metaworld.demo.accounts import Account, discrepancies
from examples.metaworld.ledger import LedgerReader
from examples.metaworld.robot import LEDGER_FILE
from examples.metaworld.settings import FleetSettings
from infra.clickhouse.client import connect

# Bounds, many times what a loaded machine takes.
_PLAY_SECONDS = 3 * 3600.0
_ARRIVE_SECONDS = 300.0

# A copied base brings the episodes of its own evaluation.
_JUDGED = """
    SELECT policy_version, task, count(), countIf(success = 1), sum(step_count) FROM episode_outcomes
    WHERE source = 'EVALUATION' AND robot_id = 'judge' AND policy = {policy:String}
      AND policy_version IN {versions:Array(Int64)}
    GROUP BY policy_version, task ORDER BY policy_version, task"""
_ONLINE = """
    SELECT count(), countIf(success = 1), countIf(success = 1 AND autonomous), sum(step_count),
           sum(human_step_count), sum(intervention_count), sumIf(human_step_count, ifNull(success, 1) = 1)
    FROM episode_outcomes WHERE source = 'ONLINE' AND policy = {policy:String}"""
_DRAWN = """
    SELECT min(share), avg(share), max(share) FROM (
        SELECT arrayJoin(tupleElement(arrayJoin(mixing), 'online_shares')) AS share
        FROM training_progress WHERE policy = {policy:String} AND learner_step > {after:Int64})
    WHERE share > 0"""

_ROOT = Path(__file__).resolve().parents[2]


def code_version() -> str:
    """Commit of the code that runs, with a + if its files differ from it; outside of git the package's version."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        return found + ("+" if _git("status", "--porcelain", "--", "*.py", "*.sql") else "")
    except (OSError, subprocess.CalledProcessError):
        return metadata.version("sop")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(_ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def start(site: Site, robot: str, fleet: FleetSettings, arguments: list[str], module: str = "") -> None:
    common = ["--data-dir", str(site.home / "robots" / robot), "--fleet", fleet.to_json()]
    site.crew.start_robot(robot, [*common, *arguments], module or "examples.metaworld.robot")


def account_of(site: Site, robot: str) -> Account:
    return Account.of(robot, LedgerReader(site.home / "robots" / robot / LEDGER_FILE).refresh())


def play_online(site: Site, fleet: FleetSettings, robots: int, seed: int) -> None:
    for index in range(robots):
        place = ["--index", str(index), "--robots", str(robots), "--seed", str(seed)]
        start(site, f"robot-{index + 1}", fleet, [*place, "--phase", "online"])
    site.wait("playing", site.crew.robots_done, _PLAY_SECONDS)


def demonstrate(site: Site, robot: str, fleet: FleetSettings, seed: int) -> Account:
    start(site, robot, fleet, ["--seed", str(seed), "--phase", "demonstrations"])
    site.wait("demonstrating", site.crew.robots_done, _PLAY_SECONDS)
    account = account_of(site, robot)
    if problems := discrepancies({robot: account}):
        raise UnitFailed("; ".join(problems))
    return account


def judge(site: Site, fleet: FleetSettings, minutes: dict[int, float]) -> list[Judged]:
    """Let versions play the fixed set in a process of its own; `minutes` by version."""
    start(site, "judge", fleet, ["--versions", ",".join(map(str, minutes))], "benchmarks.paper.judge")
    site.wait("evaluation", site.crew.robots_done, _PLAY_SECONDS)
    if not account_of(site, "judge").closed:
        raise UnitFailed("the judge's ledger is not closed")
    rows: list[tuple[Any, ...]] = []

    def arrived() -> bool:
        rows[:] = site.ask(_JUDGED, policy=fleet.policy, versions=list(minutes))
        return sum(int(row[2]) for row in rows) >= len(minutes) * fleet.evaluation_episodes

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


def count_online(site: Site, fleet: FleetSettings) -> Online:
    """What the fleet did, once ClickHouse has all of it, and the learner too; as much as the robots say.

    Raises:
        UnitFailed: something was lost on the way.
    """
    robots = [name for name in site.crew.robots if name.startswith("robot-")]
    accounts = {robot: account_of(site, robot) for robot in robots}
    if problems := discrepancies(accounts):
        raise UnitFailed("; ".join(problems))
    sent = sum(len(account.ended) for account in accounts.values())

    def found() -> Online:
        row = site.ask(_ONLINE, policy=fleet.policy)[0]
        shares = site.ask(_DRAWN, policy=fleet.policy, after=fleet.pretrain_steps)[0]
        low, mean, high = (round(float(share), 4) if math.isfinite(share) else 0.0 for share in shares)
        counts: dict[str, object] = dict(zip(Online.model_fields, map(int, row), strict=False))
        return Online.model_validate(counts | {"online_share": (low, mean, high)})

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


def result_of(
    site: Site,
    program: Program,
    unit: Base | Run,
    *,
    began: float,
    judged: list[Judged],
    steps: int,
    hashes: tuple[str, str],
    online: Online | None = None,
    outcomes: dict[str, tuple[int, int]] | None = None,
) -> Result:
    site.meter.look()
    return Result(
        name=unit.name,
        digest=program.digest(unit),
        code=code_version(),
        learner=program.learner_settings(unit).model_dump(mode="json"),
        guidance=program.settings(unit).judged_guidance,
        seed=unit.seed if isinstance(unit, Run) else unit.extra_seed,
        robots=unit.robots if isinstance(unit, Run) else 0,
        base_sha256=hashes[0],
        last_sha256=hashes[1],
        demonstration_steps=steps,
        judged=judged,
        online=online,
        outcomes=outcomes,
        wall_seconds=round(time.monotonic() - began, 1),
        cpu_seconds=site.meter.seconds(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    )
