"""`make bench-live`: robots at 30 Hz against real processes; how long after an episode's end others know of it.

Episode end → training stream is taken by a plain consumer, episode end → ClickHouse from the row's insertion time.
The robots' pacing is honest: if this machine cannot keep up, the run says so.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from benchmarks.materializer.emulator import EmulatedFleet
from benchmarks.materializer.report import Report
from infra.clickhouse.client import connect
from infra.deploy import deploy
from infra.kafka import LogReader
from infra.local.stack import Stack
from infra.settings import Settings
from schemas import codec
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES

READY_SECONDS = 180.0


def main() -> int:
    """Run for a while; print the table. Exit code 1 if the fleet could not keep its pace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robots", type=int, default=300)
    parser.add_argument("--hz", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--report", type=Path, help="append what was found to this file, as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sop-live-") as folder, Stack.start(Path(folder)) as stack:
        os.environ.update(stack.environment())
        settings = Settings()
        deploy(settings)
        commands = ["materialize"] * options.members + ["index"]
        with workers(commands, Path(folder)) as processes:
            return measure(settings, options, processes[: options.members])


def measure(settings: Settings, options: argparse.Namespace, members: list[psutil.Popen]) -> int:
    """Let the fleet run, and tell what was seen."""
    seen: list[float] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(settings, seen, stop))
    watcher.start()
    fleet = EmulatedFleet(settings, options.robots)
    memory: list[list[float]] = [[] for _ in members]
    cpu_before = [sum(member.cpu_times()[:2]) for member in members]
    late = 0.0
    began = time.monotonic()
    for tick in range(int(options.seconds * options.hz)):
        fleet.tick()
        ahead = began + (tick + 1) / options.hz - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        late = max(late, -ahead)
        if tick % int(options.hz * 5) == 0:
            for samples, member in zip(memory, members, strict=True):
                samples.append(member.memory_info().rss / 2**20)
    fleet.finish()
    spent = [sum(member.cpu_times()[:2]) - before for member, before in zip(members, cpu_before, strict=True)]
    time.sleep(6)
    stop.set()
    watcher.join()
    rows = connect(settings.clickhouse, analyst=True).query(
        "SELECT dateDiff('microsecond', ended_at, indexed_at) / 1e6 FROM episodes"
    )
    indexed = [float(row[0]) for row in rows.result_rows]
    tell(
        options,
        fleet,
        late,
        {"training stream": seen, "ClickHouse": indexed},
        list(zip(memory, spent, strict=True)),
    )
    return 0 if late < 1.0 else 1


def tell(
    options: argparse.Namespace,
    fleet: EmulatedFleet,
    late: float,
    seconds: dict[str, list[float]],
    members: list[tuple[list[float], float]],
) -> None:
    """Tables of what was seen; `members` are samples of memory in MiB, and CPU seconds, of each."""
    report = Report()
    rows = [
        [name, str(len(values)), *(f"{np.percentile(values, q):.2f}" if values else "none" for q in (50, 99, 100))]
        for name, values in seconds.items()
    ]
    note = (
        f"{fleet.steps} steps sent, {fleet.episodes} episodes ended; the fleet was late by {late:.2f} s at most."
    )
    title = (
        f"{options.robots} robots at {options.hz:.0f} Hz, {options.members} member{'s' * (options.members > 1)}"
    )
    report.section(title, ("episode end to", "episodes", "P50 s", "P99 s", "most s"), rows, note)
    shares = []
    for number, (samples, cpu) in enumerate(members):
        halves = samples[: len(samples) // 2], samples[len(samples) // 2 :]
        medians = [f"{np.median(half):.0f}" if half else "" for half in halves]
        shares.append([str(number), f"{cpu / fleet.steps * 1e6:.1f}", *medians])
    header = ("member", "µs CPU for each step of the fleet", "MiB, first half", "MiB, second half")
    report.section(f"{title}: what each member spent", header, shares)
    if options.report:
        report.write(options.report, f"make bench-live MEMBERS={options.members}", append=True)


def watch(settings: Settings, seen: list[float], stop: threading.Event) -> None:
    """Seconds from each episode's end to the moment at which a plain consumer has its announcement."""
    reader = LogReader(settings.kafka, "live-watch")
    reader.assign({partition: reader.bounds(partition)[1] for partition in reader.partitions(TRAINING_EPISODES)})
    while not stop.is_set():
        for message in reader.consume(1000, 0.05):
            now = datetime.now(UTC)
            value = message.value()
            event = codec.decode(
                EpisodeMaterialized, codec.unframe(value if isinstance(value, bytes) else None)[1]
            )
            seen.append((now - event.ended_at).total_seconds())
    reader.close()


@contextmanager
def workers(commands: list[str], logs: Path) -> Iterator[list[psutil.Popen]]:
    """`sop` processes that are ready to work (what is measured is the steady state), stopped at the end."""
    running, ports = [], []
    for number, command in enumerate(commands):
        log = (logs / f"{command}-{number}.log").open("wb")
        sop = str(Path(sys.executable).with_name("sop"))
        ports.append(_free_port())
        environment = {**os.environ, "SOP_METRICS_PORT": str(ports[-1])}
        running.append(psutil.Popen([sop, command], stdout=log, stderr=log, env=environment))
    try:
        until = time.monotonic() + READY_SECONDS
        while not all(_ready(port) for port in ports):
            if time.monotonic() > until:
                raise TimeoutError(f"not all of {commands} were ready within {READY_SECONDS:.0f} s")
            time.sleep(0.5)
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
