"""The emulated fleet: how many robots at what rate this machine sustains, and what a step costs."""

from __future__ import annotations

import os
import threading

from benchmarks.robot.bench import Bench
from producers.emulator.cli import summary
from producers.emulator.fleet import emulate
from producers.emulator.plan import FleetPlan, FleetReport

HZ = 30.0
SECONDS = 15.0
# More than any machine does: what is reached then is what it can.
FLAT_OUT_HZ = 200.0


def fleet(bench: Bench) -> list[str]:
    """Fleets of several sizes at 30 Hz, and the largest one flat out."""
    sizes = [int(size) for size in bench.options.robots.split(",")]
    asked = [(size, HZ) for size in sizes] + [(max(sizes), FLAT_OUT_HZ)]
    rows, missed = [], []
    for robots, hz in asked:
        found = run(bench, robots, hz)
        told = summary(found)
        rows.append(
            [
                f"{robots:,}",
                f"{hz:.0f}",
                f"{told['steps_per_second_asked']:,.0f}",
                f"{told['steps_per_second']:,.0f}",
                f"{told['steps_per_second'] / told['steps_per_second_asked']:.1%}",
                f"{told['latest_ms']:.0f}",
                f"{told['cpu_us_per_step']:.1f}",
            ]
        )
        if hz == HZ:
            missed += [f"{robots} emulated robots: {line}" for line in found.failures()]
    header = ("robots", "Hz", "steps/s asked", "achieved", "share", "late at most, ms", "CPU µs a step")
    note = f"{len(os.sched_getaffinity(0))} processes; the broker shares the cores. CPU is the emulator's alone."
    bench.report.section("Emulated fleet", header, rows, note)
    return missed


def run(bench: Bench, robots: int, hz: float) -> FleetReport:
    """One fleet, for a while."""
    plan = FleetPlan(
        robots=robots,
        hz=hz,
        seconds=SECONDS,
        processes=min(robots, len(os.sched_getaffinity(0))),
        prefix=f"bench-{robots}-{hz:.0f}",
    )
    return emulate(bench.settings, plan, threading.Event(), lambda _counts: None)
