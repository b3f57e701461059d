"""`make bench-materializer`: CPU per step of the materializer, beside bare consumption of the same topic.

Each figure is a whole process, several rounds are interleaved, and the verdict is a ratio within the same run.
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
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.materializer.emulator import EPISODE_STEPS
from benchmarks.materializer.load import send_load
from infra.deploy import deploy
from infra.local.stack import Stack
from infra.settings import Settings

MODES = {
    "bare": "(a) bare consume()",
    "fastavro": "(b) consume, fastavro record by record",
    "unstored": "(c) materializer, without the object store's client",
    "stored": "(c) materializer, end to end",
}


def main() -> int:
    """Run all rounds; print the table, and `ratio=X.XX` as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--robots", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", default=",".join(MODES))
    options = parser.parse_args()
    modes = options.modes.split(",")
    console = Console()
    with tempfile.TemporaryDirectory(prefix="sop-bench-") as folder, Stack.start(Path(folder)) as stack:
        os.environ.update(stack.environment())
        settings = Settings()
        deploy(settings)
        console.print(f"sending about {options.steps} steps of {options.robots} robots ...")
        steps = send_load(settings, options.steps, options.robots)
        found: dict[str, list[float]] = {mode: [] for mode in modes}
        memory: dict[str, float] = {}
        for round_ in range(options.rounds):
            for mode in random.sample(modes, len(modes)):
                result = measure(mode, steps)
                found[mode].append(result["us_per_step"])
                memory[mode] = max(memory.get(mode, 0.0), result["rss_mib"])
                console.print(f"round {round_ + 1}/{options.rounds} {mode}: {result['us_per_step']:.2f} µs a step")
    table = Table("measured", "median µs CPU a step", "least", "most", "peak MiB", title=f"{steps} steps")
    for mode in modes:
        values = found[mode]
        row = [
            f"{statistics.median(values):.2f}",
            f"{min(values):.2f}",
            f"{max(values):.2f}",
            f"{memory[mode]:.0f}",
        ]
        table.add_row(MODES[mode], *row)
    console.print(table)
    if {"bare", "unstored"} <= found.keys():
        print(f"ratio={statistics.median(found['unstored']) / statistics.median(found['bare']):.2f}")
    return 0


def measure(mode: str, steps: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.materializer.measure",
        mode,
        str(steps),
        str(steps // EPISODE_STEPS),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{mode} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(main())
