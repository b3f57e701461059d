"""`step()` in a 50 Hz loop beside a bare produce and beside nothing; and how fast the spool is emptied.

All in one run, in turns, so that what else the machine does falls on all of them alike. The step has a 64-float
state and a 7-float action.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from benchmarks.robot.bench import Bench
from benchmarks.robot.downloading import downloading
from benchmarks.robot.in_thread import PublisherThread
from benchmarks.robot.pacing import Timings, awake, paced, realtime
from infra.clock import SystemClock
from infra.local.stack import Stack
from infra.settings import Settings
from producers.robot import RobotClient
from producers.spool.outbox import PublisherLink, SpoolOutbox
from producers.spool.process import PublisherProcess
from producers.spool.publisher import IN_FLIGHT_EVENTS
from schemas.events import Feature
from schemas.topics import ROBOT_STEPS

HZ = 50.0
PERIOD_US = 1e6 / HZ
FEATURES = (Feature(name="state", shape=(64,)), Feature(name="action", shape=(7,)))
STATE, ACTION = np.linspace(0, 1, 64, dtype=np.float32), np.linspace(0, 1, 7, dtype=np.float32)
# The backlog leaves at fifty times the speed at which it was recorded, for as long as a round lasts.
CATCH_UP = 50 * HZ
WARM_UP = 50
# What a radio link brings, and what the disk takes: by the cap, bytes a second.
DOWNLOADS = {"step, download at 10 MB/s": 10e6, "step, download": None}
NO_LIMIT = 1e9
TARGET_P99 = 0.01 * PERIOD_US
TARGET_ABOVE_SLEEP = 5_000.0
TARGET_DRAIN = 50.0
AWAKE = ", cores kept awake"

Work = Callable[[], object]


def step(bench: Bench) -> list[str]:
    """The control loop's part of recording."""
    options = bench.options
    with realtime(options.realtime) as first:
        timings = measure(bench.settings, bench.folder, options.rounds, options.seconds)
    header = ("50 Hz loop", "p50 µs", "p99", "max", "p99 / period", "woken late, p99", "max", "loop late, max")
    rows = [
        [
            name,
            f"{seen.percentile(50):.0f}",
            f"{seen.percentile(99):.0f}",
            f"{seen.worst:.0f}",
            f"{seen.percentile(99) / PERIOD_US:.2%}",
            f"{seen.woken_late(99):.0f}",
            f"{max(seen.woken):.0f}",
            f"{seen.latest:.0f}",
        ]
        for name, seen in timings.items()
    ]
    load = os.getloadavg()[0]
    how = "real-time priority" if first else "no real-time priority"
    note = f"{len(timings['sleep'].work)} turns each, {how}, load average {load:.1f} on {os.cpu_count()} cores."
    bench.report.section("step()", header, rows, note)
    missed = []
    for suffix in ("", AWAKE):
        found, asleep = timings["step" + suffix], timings["sleep" + suffix]
        if found.percentile(99) > TARGET_P99:
            missed.append(f"p99 of step(){suffix} is {found.percentile(99):.0f} µs, above {TARGET_P99:.0f}")
        for what, above in (
            ("took", found.worst - asleep.worst),
            ("with its loop was late by", found.latest - asleep.latest),
        ):
            if above > TARGET_ABOVE_SLEEP:
                missed.append(f"step(){suffix} {what} {above:.0f} µs more than a loop that sleeps, at most")
    return missed


def drain(bench: Bench) -> list[str]:
    """The publisher's part: a spool that was filled while the broker was away."""
    limit = bench.settings.robot.drain_rate
    rates = {
        rate: emptied(bench.settings, bench.stack, bench.folder, bench.options.backlog, rate)
        for rate in (limit, NO_LIMIT)
    }
    rows = [
        ["none" if rate == NO_LIMIT else f"{rate:,.0f}", f"{reached:,.0f}", f"{reached / HZ:.0f}"]
        for rate, reached in rates.items()
    ]
    bench.report.section("Drain", ("limit, events/s", "steps/s", "times real time at 50 Hz"), rows)
    slowest = min(rates.values())
    return [f"the spool drains at {slowest / HZ:.0f} times real time"] if slowest < TARGET_DRAIN * HZ else []


@contextmanager
def recording(
    settings: Settings, folder: Path, publish: Callable[..., PublisherLink], rate: float, backlog: int = 0
) -> Iterator[tuple[SpoolOutbox, Work]]:
    """A robot on line, its spool emptied at `rate`; `backlog` steps wait in it."""
    robot = settings.robot.model_copy(update={"drain_rate": rate})
    fitted = settings.model_copy(update={"robot": robot})
    home = Path(tempfile.mkdtemp(dir=folder))
    # The client takes an epoch of its own; the outbox's is for the next boot, which there is none of.
    outbox = SpoolOutbox(fitted, home / "spool", "bench", 1, SystemClock(), publish=publish)
    with RobotClient(fitted, "bench", home, outbox=outbox, close_timeout=120.0) as client:
        episode = client.episode(
            task="bench", instruction="Measure.", features=FEATURES, fps=HZ, max_steps=backlog + 100_000
        )

        def step() -> None:
            episode.step(state=STATE, action=ACTION)

        for _ in range(backlog + WARM_UP):
            step()
        until = time.monotonic() + 60
        while (not backlog and outbox.depth()) or outbox.depth() == backlog + WARM_UP + 1:
            assert time.monotonic() < until, outbox.errors()
            time.sleep(0.05)
        yield outbox, step
        episode.end()


@contextmanager
def producing(settings: Settings) -> Iterator[Work]:
    """A bare producer of bodies of the same size."""
    producer = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5}
    )
    value = np.random.default_rng(1).bytes(430)

    def produce() -> None:
        producer.produce(ROBOT_STEPS, value=value, key=b"bench")
        producer.poll(0)

    for _ in range(WARM_UP):
        produce()
    producer.flush(30)
    yield produce
    producer.flush(30)


def measure(settings: Settings, folder: Path, rounds: int, seconds: float) -> dict[str, Timings]:
    """The loops, in turns."""
    found: defaultdict[str, Timings] = defaultdict(Timings)
    backlog = int(CATCH_UP * seconds * 1.5)
    for _ in range(rounds):
        for suffix, cores in (("", nullcontext), (AWAKE, awake)):
            with cores():
                paced(HZ, seconds, lambda: None, found["sleep" + suffix])
                with producing(settings) as produce:
                    paced(HZ, seconds, produce, found["produce" + suffix])
                with recording(settings, folder, PublisherProcess, CATCH_UP) as (_, step):
                    paced(HZ, seconds, step, found["step" + suffix])
        for name, publish in (("step, backlog", PublisherProcess), ("step, backlog, thread", PublisherThread)):
            with recording(settings, folder, publish, CATCH_UP, backlog) as (outbox, step):
                paced(HZ, seconds, step, found[name])
                assert outbox.depth() > 0, "the backlog was gone before the round was over"
        for name, cap in DOWNLOADS.items():
            with (
                recording(settings, folder, PublisherProcess, CATCH_UP) as (_, step),
                downloading(settings, folder, cap),
            ):
                paced(HZ, seconds, step, found[name])
    return found


def emptied(settings: Settings, stack: Stack, folder: Path, backlog: int, rate: float) -> float:
    """Steps a second that leave a spool which was filled while the broker was away."""
    with recording(settings, folder, PublisherProcess, rate) as (outbox, step):
        stack.pause("broker")
        try:
            for _ in range(backlog):
                step()
        finally:
            stack.resume("broker")
        # From when what was on its way before is there: how soon the broker is found again is not the spool's.
        until = time.monotonic() + 300
        while outbox.depth() > backlog - IN_FLIGHT_EVENTS - 100:
            assert time.monotonic() < until
            time.sleep(0.002)
        begun, waiting = time.perf_counter(), outbox.depth()
        while outbox.depth():
            assert time.monotonic() < until
            time.sleep(0.002)
        return waiting / (time.perf_counter() - begun)
