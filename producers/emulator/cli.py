"""`sop fleet-emulator`; the command itself is put together in `sop.py`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from producers.emulator.plan import Counts, FleetPlan, FleetReport

_LINE_EVERY = 5.0


def fleet_emulator(
    *,
    robots: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    hz: Annotated[float, typer.Option(min=0.01, help="Control steps a second, of each.")] = 30.0,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="How long; by default until it is stopped.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="By default one per core.")] = None,
    episode_steps: Annotated[int, typer.Option(min=1, help="Steps of an episode.")] = 300,
    state: Annotated[int, typer.Option(min=1, help="Elements of the state vector.")] = 32,
    action: Annotated[int, typer.Option(min=1, help="Elements of the action.")] = 14,
    prefix: Annotated[str, typer.Option(help="Robots are named PREFIX-00000 and so on.")] = "emulated",
    data_dir: Annotated[
        Path | None, typer.Option(help="Robots' directories (boot epochs); by default gone afterwards.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
) -> None:
    """Emulate a fleet at the wire: real robot clients, no simulator, no spool. SIGTERM ends it cleanly.

    Exit code 1 if the machine could not keep the pace, or Kafka did not take everything.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - each command loads what it needs, no more
    from rich.console import Console  # noqa: PLC0415

    from infra.command import settings_or_fail, wait_or_fail  # noqa: PLC0415
    from infra.errors import InfraError  # noqa: PLC0415
    from infra.lifecycle import stop_on_signals  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415
    from producers.emulator.fleet import FleetFailed, emulate  # noqa: PLC0415
    from producers.emulator.plan import FleetPlan  # noqa: PLC0415

    settings = settings_or_fail()
    try:
        plan = FleetPlan(
            robots=robots,
            hz=hz,
            seconds=seconds,
            episode_steps=episode_steps,
            state=state,
            action=action,
            prefix=prefix,
            processes=min(robots, processes or len(os.sched_getaffinity(0))),
        )
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", code=2)
    stop, console = stop_on_signals(), Console(stderr=True)
    wait_or_fail(settings, ["Kafka", "schema registry"], stop)
    console.print(f"{plan.robots} robots in {plan.processes} processes get ready …")
    try:
        report = emulate(settings, plan, stop, _Progress(plan, console), data_dir)
    except (FleetFailed, InfraError, OSError) as error:
        fail(str(error))
    show(report, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(summary(report), indent=2) + "\n")
    if failures := report.failures():
        fail("; ".join(failures))


class _Progress:
    """A line now and then: what was reached since the one before."""

    def __init__(self, plan: FleetPlan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._at = 0.0
        self._last: Counts | None = None

    def __call__(self, counts: Counts) -> None:
        now = time.monotonic()
        if counts.seconds < 1 or now - self._at < _LINE_EVERY:
            return
        before, self._last, self._at = self._last, counts, now
        steps = counts.steps - (before.steps if before else 0)
        seconds = counts.seconds - (before.seconds if before else 0)
        if seconds <= 0:
            return
        asked = self._plan.steps_per_second
        short = "" if steps / seconds >= 0.99 * asked else "   cannot keep up"
        self._console.print(
            f"{counts.seconds:6.0f} s   {steps / seconds:10,.0f} of {asked:,.0f} steps/s   "
            f"{counts.latest * 1e3:.0f} ms late at most   {counts.unacknowledged:,} in flight{short}",
            highlight=False,
        )


def summary(report: FleetReport) -> dict[str, float | int]:
    """As numbers, for scripts."""
    counts, plan = report.counts, report.plan
    return {
        "robots": plan.robots,
        "hz": plan.hz,
        "processes": plan.processes,
        "seconds": round(counts.seconds, 3),
        "steps": counts.steps,
        "steps_skipped": counts.skipped,
        "steps_per_second_asked": plan.steps_per_second,
        "steps_per_second": round(report.achieved, 1),
        "latest_ms": round(counts.latest * 1e3, 1),
        "cpu_us_per_step": round(report.cpu_per_step, 2),
        "episodes": counts.episodes,
        "unacknowledged": counts.unacknowledged,
        "refused": counts.refused,
    }


def show(report: FleetReport, console: Console) -> None:
    """The result as a table."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(show_header=False)
    for name, value in summary(report).items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    console.print(table)
