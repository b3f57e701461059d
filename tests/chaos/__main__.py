"""Seeds of faults against the real servers; the check of what they left; a report.

    python -m tests.chaos --seeds 1..3 --report r.json

Exit code 0: nothing lost, nothing doubled, no other anomaly; 1: something was; 2: wrong use.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from tests.chaos.harness import harness_on
from tests.chaos.kinds import KINDS
from tests.chaos.report import Report, progress
from tests.chaos.run import Run
from tests.chaos.schedule import schedule_of


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=_seeds, required=True, help="A..B, both included, or one number")
    parser.add_argument("--events", type=_positive, default=10_000, help="records that robots send in each seed")
    parser.add_argument("--robots", type=_positive, default=8)
    parser.add_argument("--kinds", type=_kinds, default=tuple(KINDS), help="comma-separated; default: all")
    parser.add_argument("--report", type=Path, required=True, help="JSON")
    parser.add_argument("--data", type=Path, help="keep servers' data and logs here (default: a temporary folder)")
    parser.add_argument("--seeds-per-stack", type=_positive, default=25, help="a fresh stack after so many")
    chosen = parser.parse_args(arguments)
    report = Report(chosen.seeds, chosen.events, chosen.robots)
    with contextlib.ExitStack() as folder:
        data = chosen.data or Path(folder.enter_context(tempfile.TemporaryDirectory(prefix="sop-chaos-")))
        for at in range(0, len(chosen.seeds), chosen.seeds_per_stack):
            with harness_on(data / f"stack-{at // chosen.seeds_per_stack}") as harness:
                for seed in chosen.seeds[at : at + chosen.seeds_per_stack]:
                    schedule = schedule_of(seed, events=chosen.events, robots=chosen.robots, kinds=chosen.kinds)
                    outcome = Run(harness, schedule).execute()
                    report.add(outcome)
                    progress(outcome)
                    report.write(chosen.report)
    return 0 if report.clean else 1


def _seeds(text: str) -> list[int]:
    first, dots, last = text.partition("..")
    try:
        seeds = list(range(int(first), int(last if dots else first) + 1))
    except ValueError:
        seeds = []
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is not A..B with A <= B")
    return seeds


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        raise argparse.ArgumentTypeError(f"no such kind: {', '.join(wrong)}; there are {', '.join(KINDS)}")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
