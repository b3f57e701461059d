"""`make bench-materializer`: CPU per step of the materializer, beside bare consumption of the same topic.

Each figure is a whole process, all its threads; rounds are interleaved, and the verdict is a ratio within the run.
`--report FILE` writes what was found as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.materializer.emulator import EPISODE_STEPS
from benchmarks.materializer.load import send_load
from benchmarks.materializer.report import Report, median_and_interval
from infra.deploy import deploy
from infra.local.stack import Stack
from infra.settings import Settings

MODES = {
    "bare": "(a) bare consume()",
    "fastavro": "(b) consume, fastavro record by record",
    "unstored": "(c) materializer, without the object store's client",
    "stored": "(c) materializer, end to end",
    "obstore": "the object store's client alone: obstore",
    "s3fs": "the object store's client alone: s3fs",
}
SOURCES = {"bare": "bare", "fastavro": "bare", "obstore": "puts", "s3fs": "puts"}
"""Module that measures a mode; the others are `measure`'s."""
FLEETS = (10, 100, 1_000)


class Load:
    """A stack of servers of its own, with steps on its topics."""

    def __init__(self, open_here: ExitStack, steps: int, robots: int) -> None:
        folder = open_here.enter_context(tempfile.TemporaryDirectory(prefix="sop-bench-"))
        stack = open_here.enter_context(Stack.start(Path(folder)))
        self._environment = stack.environment()
        settings = _settings(self._environment)
        deploy(settings)
        self.robots = robots
        self.steps = send_load(settings, steps, robots)

    def measure(self, mode: str) -> dict[str, Any]:
        """One measurement in a process of its own.

        Raises:
            RuntimeError: it failed; the text is the end of what it said.
        """
        episodes = str(self.steps // EPISODE_STEPS)
        numbers = {"bare": [str(self.steps)], "puts": [episodes]}
        source = SOURCES.get(mode, "measure")
        module = f"benchmarks.materializer.{source}"
        command = [sys.executable, "-m", module, mode, *numbers.get(source, [str(self.steps), episodes])]
        environment = {**os.environ, **self._environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
        if done.returncode:
            raise RuntimeError(f"{mode} failed:\n{done.stderr[-3000:]}")
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


def main() -> int:
    """Run all rounds; print the tables, and `ratio=X.XX` as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--robots", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--fleet-steps", type=int, default=300_000, help="for each fleet size; 0 leaves them out")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    report = Report()
    ratio = compare_modes(report, options)
    if options.fleet_steps:
        compare_fleets(report, options)
    if options.report:
        report.write(options.report, "make bench-materializer")
    if ratio is not None:
        print(f"ratio={ratio:.2f}")
    return 0


def compare_modes(report: Report, options: argparse.Namespace) -> float | None:
    """One topic, all modes; the ratio of (c) without the store's client to (a), if both were measured."""
    modes = options.modes.split(",")
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    with ExitStack() as here:
        report.say(f"sending about {options.steps} steps of {options.robots} robots ...")
        load = Load(here, options.steps, options.robots)
        for round_ in range(options.rounds):
            for mode in random.sample(modes, len(modes)):
                found[mode].append(load.measure(mode))
                cost = found[mode][-1]["us_per_step"]
                report.say(f"round {round_ + 1}/{options.rounds} {mode}: {cost:.2f} µs a step")
        profile = load.measure("profile") if "unstored" in modes else None
    costs = {mode: [one["us_per_step"] for one in results] for mode, results in found.items()}
    rows = [[MODES[mode], *median_and_interval(costs[mode]), _most(found[mode], "peak_mib")] for mode in modes]
    note = f"{load.steps} steps of {load.robots} robots, {options.rounds} interleaved rounds, whole processes."
    report.section(
        "Cost of a step", ("measured", "µs CPU a step, median", "least to most", "peak MiB"), rows, note
    )
    if profile is not None:
        show_profile(report, profile)
        show_memory(report, found["unstored"])
    if not {"bare", "unstored"} <= costs.keys():
        return None
    ratios = [c / a for c, a in zip(costs["unstored"], costs["bare"], strict=True)]
    ratio: float = statistics.median(costs["unstored"]) / statistics.median(costs["bare"])
    note = "(c) without the object store's client ÷ (a); least and most are of single rounds."
    report.section(
        "Ratio",
        ("ratio of the medians", "least", "most"),
        [[f"{x:.2f}" for x in (ratio, min(ratios), max(ratios))]],
        note,
    )
    return ratio


def show_profile(report: Report, profile: dict[str, Any]) -> None:
    """Where the materializer's CPU goes."""
    stages: dict[str, float] = profile["stages"]
    tops = sum(stages.get(f"{name}: all", 0.0) for name in ("decode", "payload", "commit"))
    tops += sum(cost for label, cost in stages.items() if label.startswith(("consume", "fold")))
    rows = [[label, f"{cost:.2f}"] for label, cost in sorted(stages.items())]
    rows.append(
        ["everything else: Kafka's threads, freeing records, the loop", f"{profile['us_per_step'] - tops:.2f}"]
    )
    rows.append(["the whole process", f"{profile['us_per_step']:.2f}"])
    note = "One run without the object store's client; what follows an `all` is a part of it."
    report.section("Where it goes", ("stage", "µs CPU a step"), rows, note)


def show_memory(report: Report, results: list[dict[str, Any]]) -> None:
    """Memory over the time of a run."""
    rows = []
    for number, result in enumerate(results, start=1):
        samples = result["mib"]
        quarter = max(1, len(samples) // 4)
        parts = [samples[at : at + quarter] for at in range(0, quarter * 4, quarter)]
        rows.append([str(number), *(f"{statistics.median(part):.0f}" if part else "" for part in parts)])
    header = ("round", "1st quarter, MiB", "2nd", "3rd", "4th")
    report.section("Memory over time", header, rows, "Median resident memory of the quarters of each run.")


def compare_fleets(report: Report, options: argparse.Namespace) -> None:
    """The same number of steps from fleets of different sizes, rounds interleaved."""
    costs: defaultdict[int, list[float]] = defaultdict(list)
    with ExitStack() as here:
        loads = []
        for robots in FLEETS:
            report.say(f"sending about {options.fleet_steps} steps of {robots} robots ...")
            loads.append(Load(here, options.fleet_steps, robots))
        for round_ in range(options.rounds):
            for load in random.sample(loads, len(loads)):
                costs[load.robots].append(load.measure("unstored")["us_per_step"])
                report.say(
                    f"round {round_ + 1}/{options.rounds} {load.robots} robots: {costs[load.robots][-1]:.2f} µs"
                )
    rows = [[str(robots), *median_and_interval(values)] for robots, values in sorted(costs.items())]
    note = f"About {options.fleet_steps} steps each, without the object store's client."
    report.section("Cost by size of the fleet", ("robots", "µs CPU a step, median", "least to most"), rows, note)


def _most(results: list[dict[str, Any]], name: str) -> str:
    values = [result[name] for result in results if name in result]
    return f"{max(values):.0f}" if values else ""


def _settings(environment: dict[str, str]) -> Settings:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return Settings()
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    sys.exit(main())
