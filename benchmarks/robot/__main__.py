"""`make bench-robot`: `step()` in a 50 Hz loop beside a bare produce and beside nothing; and the spool's drain.

All in one run, in turns, so that what else the machine does falls on all of them alike. The step has a 64-float
state and a 7-float action. Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.robot.in_thread import PublisherThread
from benchmarks.robot.pacing import Timings, paced
from infra.clock import SystemClock
from infra.kafka.admin import ClusterAdmin
from infra.local.stack import Stack
from infra.registry import Registry
from infra.settings import Settings, load_settings
from producers.robot import RobotClient
from producers.spool.outbox import PublisherLink, SpoolOutbox
from producers.spool.process import PublisherProcess
from producers.spool.publisher import IN_FLIGHT_EVENTS
from schemas.events import Feature
from schemas.topics import ROBOT_STEPS, TOPICS

HZ = 50.0
PERIOD_US = 1e6 / HZ
FEATURES = (Feature(name="state", shape=(64,)), Feature(name="action", shape=(7,)))
STATE, ACTION = np.linspace(0, 1, 64, dtype=np.float32), np.linspace(0, 1, 7, dtype=np.float32)
# The backlog leaves at fifty times the speed at which it was recorded, for as long as a round lasts.
CATCH_UP = 50 * HZ
WARM_UP = 50
NO_LIMIT = 1e9
TARGET_P99 = 0.01 * PERIOD_US
TARGET_ABOVE_SLEEP = 5_000.0
TARGET_DRAIN = 50.0

Work = Callable[[], object]


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each loop in each round")
    parser.add_argument("--backlog", type=int, default=60_000, help="steps that the drain is measured with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sop-robot-", dir="/var/tmp") as name:  # a disk, not memory
        folder = Path(name)
        with Stack.start(folder / "stack", only=("broker", "registry")) as stack:
            (folder / "env").write_text("".join(f"{k}={v}\n" for k, v in stack.environment().items()))
            settings = load_settings(folder / "env")
            ClusterAdmin(settings.kafka).ensure_topics(TOPICS.values())
            for topic in TOPICS.values():
                if topic.event is not None:
                    Registry(settings.registry).deploy(topic)
            timings = measure(settings, folder, options.rounds, options.seconds)
            limit = settings.robot.drain_rate
            rates = {rate: drain(settings, stack, folder, options.backlog, rate) for rate in (limit, NO_LIMIT)}
    return judge(timings, rates)


@contextmanager
def recording(
    settings: Settings, folder: Path, publish: Callable[..., PublisherLink], rate: float, backlog: int = 0
) -> Iterator[tuple[SpoolOutbox, Work]]:
    """A robot on line, its spool emptied at `rate`; `backlog` steps wait in it."""
    robot = settings.robot.model_copy(update={"drain_rate": rate})
    fitted = settings.model_copy(update={"robot": robot})
    home = Path(tempfile.mkdtemp(dir=folder))
    outbox = SpoolOutbox(
        fitted, home / "spool", "bench", time.time_ns() // 1_000_000, SystemClock(), publish=publish
    )
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
    found = {name: Timings() for name in ("sleep", "produce", "step", "step, backlog", "step, backlog, thread")}
    backlog = int(CATCH_UP * seconds * 1.5)
    for _ in range(rounds):
        paced(HZ, seconds, lambda: None, found["sleep"])
        with producing(settings) as produce:
            paced(HZ, seconds, produce, found["produce"])
        with recording(settings, folder, PublisherProcess, CATCH_UP) as (_, step):
            paced(HZ, seconds, step, found["step"])
        for name, publish in (("step, backlog", PublisherProcess), ("step, backlog, thread", PublisherThread)):
            with recording(settings, folder, publish, CATCH_UP, backlog) as (outbox, step):
                paced(HZ, seconds, step, found[name])
                assert outbox.depth() > 0, "the backlog was gone before the round was over"
    return found


def drain(settings: Settings, stack: Stack, folder: Path, backlog: int, rate: float) -> float:
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


def judge(timings: dict[str, Timings], rates: dict[float, float]) -> int:
    """Print what was seen, and whether the targets are met."""
    table = Table(title=f"a {HZ:.0f} Hz loop, µs; {len(timings['sleep'].work)} turns each")
    for column in ("", "p50", "p99", "max", "p99 / period", "loop late, max", "above sleep"):
        table.add_column(column, justify="left" if not column else "right")
    asleep = timings["sleep"].latest
    for name, seen in timings.items():
        table.add_row(
            name,
            f"{seen.percentile(50):.0f}",
            f"{seen.percentile(99):.0f}",
            f"{seen.worst:.0f}",
            f"{seen.percentile(99) / PERIOD_US:.2%}",
            f"{seen.latest:.0f}",
            f"{seen.latest - asleep:+.0f}",
        )
    console = Console(width=115)
    console.print(table)
    for rate, reached in rates.items():
        limit = "no limit" if rate == NO_LIMIT else f"limit {rate:.0f}/s"
        console.print(f"drain, {limit}: {reached:,.0f} steps/s, {reached / HZ:.0f} times real time")
    step = timings["step"]
    missed = []
    if step.percentile(99) > TARGET_P99:
        missed.append(f"p99 of step() is {step.percentile(99):.0f} µs, above {TARGET_P99:.0f}")
    if step.latest - asleep > TARGET_ABOVE_SLEEP:
        missed.append(f"the loop with step() was {step.latest - asleep:.0f} µs later than one that sleeps")
    if min(rates.values()) < TARGET_DRAIN * HZ:
        missed.append(f"the spool drains at {min(rates.values()) / HZ:.0f} times real time")
    for line in missed:
        console.print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
