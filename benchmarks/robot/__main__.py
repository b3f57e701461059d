"""`make bench-robot`: what the robot's edge costs, part by part. Exit code 1 if a target is missed.

`--parts` names some of them. Servers and measurements share one machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.robot.bench import Bench, Part
from benchmarks.robot.emulated import fleet
from benchmarks.robot.step import drain, step
from benchmarks.robot.swap import swap
from infra.kafka.admin import ClusterAdmin
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import load_settings
from schemas.topics import TOPICS

# Whoever measures something else of the robot adds it here.
PARTS: dict[str, Part] = {"step": step, "drain": drain, "swap": swap, "fleet": fleet}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=8, help="of each loop")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each loop in each round")
    parser.add_argument(
        "--realtime",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the 50 Hz loops run under SCHED_FIFO where this user may, as a robot's do",
    )
    parser.add_argument("--backlog", type=int, default=60_000, help="steps that the drain is measured with")
    parser.add_argument("--megabytes", default="10,780", help="sizes of artifacts, separated by commas")
    parser.add_argument("--robots", default="10,100,1000", help="sizes of fleets, separated by commas")
    parser.add_argument("--report", type=Path, help="append what was found to this file, as Markdown")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="sop-robot-", dir="/var/tmp") as name:  # a disk, not memory
        folder = Path(name)
        with Stack.start(folder / "stack", only=("broker", "registry", "object_store")) as stack:
            (folder / "env").write_text("".join(f"{k}={v}\n" for k, v in stack.environment().items()))
            settings = load_settings(folder / "env")
            ClusterAdmin(settings.kafka).ensure_topics(TOPICS.values())
            for topic in TOPICS.values():
                if topic.event is not None:
                    Registry(settings.registry).deploy(topic)
            ObjectStore(settings.s3).ensure_bucket()
            bench = Bench(settings, stack, folder, options)
            missed = [line for part in parts for line in PARTS[part](bench)]
    for line in missed:
        bench.report.say(f"missed: {line}")
    if options.report:
        bench.report.write(options.report, "make bench-robot", append=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
