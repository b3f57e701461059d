"""Seeds of faults against the real servers; the check of what they left, and `sop reconcile`; a report.

    python -m tests.chaos --seeds 1..3 --report r.json

Exit code 0: nothing lost, nothing doubled, no other anomaly; 1: something was; 2: wrong use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.harness import harness_on
from tests.chaos.kinds import KINDS
from tests.chaos.processes import LEASH
from tests.chaos.report import Report, audit_line, merged, progress
from tests.chaos.run import Run
from tests.chaos.schedule import schedule_of

LEASHED = (sys.executable, "-I", "-S", str(LEASH))
"""Begins the command of a process that ends with this one, however this one ends."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=_seeds, required=True, help="A..B, both included, or one number")
    parser.add_argument("--events", type=_positive, default=10_000, help="records that robots send in each seed")
    parser.add_argument("--robots", type=_positive, default=8)
    parser.add_argument("--kinds", type=_kinds, default=tuple(KINDS), help="comma-separated; default: all")
    parser.add_argument("--report", type=Path, required=True, help="JSON")
    parser.add_argument("--data", type=Path, help="keep servers' data and logs here (default: a temporary folder)")
    parser.add_argument("--seeds-per-stack", type=_positive, default=25, help="a fresh stack after so many")
    parser.add_argument("--jobs", type=_positive, default=1, help="processes, each with a stack of its own")
    chosen = parser.parse_args(arguments)
    try:
        chosen.report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--report {chosen.report} cannot be written: {error.strerror}")
    if chosen.jobs > 1:
        return share(chosen)
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
                audited = harness.audit()
                report.add_audit(audited)
                audit_line(audited)
                report.write(chosen.report)
    return 0 if report.clean else 1


def share(chosen: argparse.Namespace) -> int:
    """Give each of several processes a share of the seeds; their reports become one."""
    size = -(-len(chosen.seeds) // chosen.jobs)
    shares = [chosen.seeds[at : at + size] for at in range(0, len(chosen.seeds), size)]
    parts = [chosen.report.with_suffix(f".from-{seeds[0]}.json") for seeds in shares]
    processes = [
        subprocess.Popen([*LEASHED, str(os.getpid()), sys.executable, "-m", "tests.chaos", *command])
        for command in (_command(chosen, seeds, part) for seeds, part in zip(shares, parts, strict=True))
    ]
    try:
        codes = [process.wait() for process in processes]
    finally:  # what was done until an interruption counts too
        found = [json.loads(part.read_text()) for part in parts if part.exists()]
        if found:
            chosen.report.write_text(json.dumps(merged(found), indent=1) + "\n")
        for part in parts:
            part.unlink(missing_ok=True)
    return max(codes, key=abs)


def _command(chosen: argparse.Namespace, seeds: list[int], part: Path) -> list[str]:
    options = {
        "--seeds": f"{seeds[0]}..{seeds[-1]}",
        "--events": str(chosen.events),
        "--robots": str(chosen.robots),
        "--kinds": ",".join(chosen.kinds),
        "--seeds-per-stack": str(chosen.seeds_per_stack),
        "--report": str(part),
    }
    if chosen.data:
        options["--data"] = str(chosen.data / f"from-{seeds[0]}")
    return [text for option in options.items() for text in option]


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
