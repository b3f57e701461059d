"""The demo from top to bottom: servers, workers, robots; watch them; wait for the pipeline; count; tell."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from examples.metaworld.demo import audit, home, outputs, queries, servers, tell
from examples.metaworld.demo.accounts import Account, discrepancies, evaluated
from examples.metaworld.demo.crew import WORKERS, Crew
from examples.metaworld.demo.live import View
from examples.metaworld.demo.report import (
    Episodes,
    Interventions,
    Latencies,
    PolicyVersions,
    Quantiles,
    Report,
    Steps,
    Success,
    broken_equalities,
    learned_nothing,
)
from examples.metaworld.demo.watch import Watcher
from examples.metaworld.robot import LEDGER_FILE
from examples.metaworld.settings import FLEET, FleetSettings
from infra.clickhouse.client import ClickHouseError, Client, connect
from infra.clock import Clock, SystemClock
from infra.deploy import deploy
from infra.errors import InfraError
from infra.local import control
from infra.settings import Settings

_LOOK_SECONDS = 0.5
# Bounds, several times what a loaded machine takes.
_PLAY_SECONDS = 1800.0
_DRAIN_SECONDS = 120.0


class DemoFailed(Exception):
    """The demo did not come to its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What was asked for."""

    robots: int
    seed: int
    data_dir: Path
    keep: bool = False
    report: Path | None = None
    plot: Path = Path("artifacts/demo.png")
    fleet: FleetSettings = FLEET


def run_demo(demo: Demo, console: Console, clock: Clock | None = None) -> int:
    """Run it; the exit code: 0, or 1 when something does not add up.

    Raises:
        home.DirectoryRefused: the data directory is somebody's.
        outputs.OutputRefused: the report or the picture cannot be written.
        DemoFailed, CrewFailed: it did not come to its end; its logs stay in the data directory.
        infra.local.stack.StackError, infra.errors.InfraError: a server failed.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    data_dir = demo.data_dir.absolute()
    _forget_settings()
    outputs.check("--plot", demo.plot, data_dir)
    if demo.report is not None:
        outputs.check("--report", demo.report, data_dir)
    home.claim(data_dir)
    console.print(f"starting Kafka, object store, ClickHouse and schema registry in {data_dir}", highlight=False)
    with servers.running(data_dir, outlive=demo.keep) as environment:
        learning, keys = demo.fleet.learner_environment(demo.robots, demo.seed), servers.make_keys(data_dir)
        env_file, settings = servers.write_settings(data_dir, environment, learning, keys)
        if demo.keep:
            # For whoever looks: its keys and its line, and nothing of how it learned: a learner that somebody
            # starts then would wait for simulated robots.
            control.keep_settings(data_dir, {**keys, "SOP_LEARNER__POLICY": demo.fleet.policy})
        deploy(settings)
        crew = Crew(env_file, data_dir / "logs", clock)
        try:
            accounts = _play(demo, crew, settings, console, clock)
            analyst = connect(settings.clickhouse, analyst=True)
            report = _count(demo, settings, accounts, analyst, lambda: clock.monotonic() - began)
            problems = [
                *discrepancies(accounts),
                *broken_equalities(report),
                *_compare_evaluations(demo, accounts, analyst),
                *learned_nothing(demo.fleet, report.success.base, report.success.final),
            ]
            if demo.report is not None:
                demo.report.parent.mkdir(parents=True, exist_ok=True)
                demo.report.write_text(report.model_dump_json(indent=2) + "\n")
            tell.outcome(console, analyst, demo.fleet, report, demo.plot)
            analyst.close()
        finally:
            crew.stop()
        tell.verdict(console, problems)
        if demo.keep:
            tell.addresses(console, settings, data_dir)
    if not demo.keep and not problems:
        home.remove(data_dir)
    elif not demo.keep:
        console.print(
            f"servers are stopped; data and logs stay in {data_dir} until the next demo", highlight=False
        )
    return 1 if problems else 0


def _forget_settings() -> None:
    # The environment wins over the demo's own file: a leftover setting would send its data to another cluster.
    for name in [name for name in os.environ if name.startswith("SOP_")]:
        del os.environ[name]


def _play(demo: Demo, crew: Crew, settings: Settings, console: Console, clock: Clock) -> dict[str, Account]:
    """Start everybody and watch until all robots are done and everything has arrived; the robots' accounts."""
    homes = {f"robot-{n + 1}": demo.data_dir.absolute() / "robots" / f"robot-{n + 1}" for n in range(demo.robots)}
    for name in WORKERS:
        crew.start_worker(name)
    for index, (robot_id, directory) in enumerate(homes.items()):
        place = ["--data-dir", str(directory), "--index", str(index), "--robots", str(demo.robots)]
        crew.start_robot(robot_id, [*place, "--seed", str(demo.seed), "--fleet", demo.fleet.to_json()])
    watcher = Watcher(settings, {robot_id: path / LEDGER_FILE for robot_id, path in homes.items()}, clock)
    doing, until = "playing", clock.monotonic() + _PLAY_SECONDS
    try:
        with View(console, clock, demo.fleet.minutes) as view:
            while True:
                for worker in crew.mend():
                    view.say(f"{worker} had died and was started again")
                done = crew.robots_done()  # before the ledgers are read, so that they are whole
                accounts = watcher.accounts()
                pipeline = watcher.pipeline(accounts)
                view.show(doing, accounts, pipeline)
                if done and doing == "playing":
                    doing, until = "waiting for the pipeline", clock.monotonic() + _DRAIN_SECONDS
                if done and _arrived(accounts, settings, demo.fleet):
                    return accounts
                if clock.monotonic() > until:
                    if not done:
                        raise DemoFailed(f"the robots were not done within {_PLAY_SECONDS:.0f} s")
                    view.say(f"the pipeline did not catch up within {_DRAIN_SECONDS:.0f} s")
                    return accounts
                time.sleep(_LOOK_SECONDS)
    finally:
        watcher.close()


def _arrived(accounts: dict[str, Account], settings: Settings, fleet: FleetSettings) -> bool:
    """Whether ClickHouse knows of everything; the other places are upstream of it.

    Not while it does not answer: the next look may be luckier.
    """
    last = fleet.intervals * fleet.interval_seconds
    try:
        with closing(connect(settings.clickhouse, analyst=True)) as client:
            episodes, interventions, _ = audit.count_rows(client)
            activations = queries.ask(client, "SELECT count() FROM policy_activations").rows[0][0]
            unlearned = queries.unlearned(client, last)
    except (InfraError, ClickHouseError):
        return False
    return (
        episodes >= sum(len(account.ended) for account in accounts.values())
        and interventions >= sum(account.interventions for account in accounts.values())
        and activations >= sum(len(account.activated) for account in accounts.values())
        and unlearned == 0
    )


def _count(
    demo: Demo, settings: Settings, accounts: dict[str, Account], analyst: Client, seconds: Callable[[], float]
) -> Report:
    stream = audit.read_stream(settings)
    objects = audit.read_objects(settings, stream)
    episodes, interventions, doubled = audit.count_rows(analyst)
    published, activated = queries.versions(analyst, demo.robots)
    judged = queries.evaluated(analyst)
    shares = [good / count for count, good in judged.values()]
    return Report(
        episodes=Episodes(
            sent=sum(len(account.started) for account in accounts.values()),
            materialized=objects.episodes,
            in_clickhouse=episodes,
            in_training_stream=stream.episodes,
        ),
        steps=Steps(sent=sum(account.steps for account in accounts.values()), materialized=objects.steps),
        interventions=Interventions(
            sent=sum(account.interventions for account in accounts.values()), in_clickhouse=interventions
        ),
        duplicates=stream.duplicates + doubled,
        dead_letters=audit.count_dead_letters(settings),
        policy_versions=PolicyVersions(published=published, activated_by_every_robot=activated),
        success=Success(
            base=round(shares[0], 4) if shares else 0.0,
            final=round(shares[-1], 4) if shares else 0.0,
            evaluation_episodes=min((count for count, _ in judged.values()), default=0),
        ),
        latency_seconds=Latencies(**{name: _quantiles(analyst, name) for name in queries.LATENCIES}),
        seed=demo.seed,
        wall_seconds=round(seconds(), 1),
    )


def _quantiles(analyst: Client, name: str) -> Quantiles:
    p50, p99 = queries.latency(analyst, name)
    return Quantiles(p50=None if p50 is None else round(p50, 3), p99=None if p99 is None else round(p99, 3))


def _compare_evaluations(demo: Demo, accounts: dict[str, Account], analyst: Client) -> list[str]:
    """Where robots and ClickHouse disagree about the fixed set, or it was not played whole by two policies."""
    said, found = evaluated(accounts), queries.evaluated(analyst)
    problems = [] if said == found else [f"evaluation: robots say {said}, ClickHouse says {found}"]
    whole = demo.fleet.evaluation_episodes
    if [count for count, _ in found.values()] != [whole, whole]:
        problems.append(f"evaluation: expected {whole} episodes of two versions, found {found}")
    return problems
