"""One process of the fleet: its robots' clients, stepped at their times until they are to stop."""

from __future__ import annotations

import contextlib
import gc
import math
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from infra.clock import SystemClock
from infra.kafka import EventProducer
from infra.registry import Registry
from infra.settings import Settings
from infra.telemetry import configure_logging
from producers.emulator.outbox import Wire, WireOutbox
from producers.emulator.plan import Counts, FleetPlan, home
from producers.emulator.schedule import Schedule
from producers.episode import Episode, InterventionRecording
from producers.errors import RobotClientError, SpoolFull
from producers.robot import RobotClient
from schemas.events import Feature

_REPORT_EVERY = 0.5
_FLUSH = 30.0
# After the fleet's time: longest wait for Kafka to take the ends of episodes.
_ROOM = 15.0
# Of episodes; in one of these a human takes over for its second quarter.
_SUCCESS, _TAKEN_OVER = 0.7, 0.2
# Seconds: a slot that is due when the time is over does not count, whatever floats make of it.
_ROUNDING = 1e-6
# Different vectors to draw from: drawing them costs nothing that a robot would pay.
_DRAWN = 256


class Robot:
    """A client that records one episode after another."""

    def __init__(self, client: RobotClient, plan: FleetPlan, first: int, random: np.random.Generator) -> None:
        self.client = client
        self.episodes = 0
        self._plan = plan
        self._random = random
        self._features = (
            Feature(name="state", shape=(plan.state,)),
            Feature(name="action", shape=(plan.action,)),
        )
        self._left = first
        self._episode: Episode | None = None
        self._human: InterventionRecording | None = None

    def step(self, state: np.ndarray, action: np.ndarray) -> None:
        """One control step, and what begins or ends with it."""
        episode = self._episode or self._begin()
        if self._human is not None and self._left == self._plan.episode_steps // 2:
            self._human.close()
            self._human = None
        episode.step(state=state, action=action)
        self._left -= 1
        if self._left == 3 * self._plan.episode_steps // 4 > 0 and self._random.random() < _TAKEN_OVER:
            self._human = episode.intervention(operator="emulated", reason="by chance").begin()
        if self._left <= 0:
            self.end(success=bool(self._random.random() < _SUCCESS))

    def end(self, *, success: bool | None = None) -> None:
        """End what is open."""
        if self._episode is not None:
            self._episode.end(success=success, truncated=success is None)
            self._episode, self._human, self._left = None, None, self._plan.episode_steps
            self.episodes += 1

    def _begin(self) -> Episode:
        self._episode = self.client.episode(
            task="emulated",
            instruction="Move as chance has it.",
            features=self._features,
            fps=self._plan.hz,
            embodiment="emulated",
            max_steps=self._plan.episode_steps,
        )
        return self._episode


@dataclass
class Ending:
    """When a full queue is waited for no longer: at `until`, monotonic seconds, or when the parent says a word."""

    parent: Connection
    until: float = math.inf

    def __call__(self) -> bool:
        """Whether that is now."""
        return time.monotonic() >= self.until or self.parent.poll()


def run(settings: Settings, plan: FleetPlan, process: int, folder: Path, parent: Connection) -> None:
    """Say when all robots are ready, begin at the time that is said then; a word, or the parent's end, ends it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent is told too, and says when
    configure_logging(f"emulator-{process}")
    names = plan.names(process)
    _allow_files(len(names))
    ending = Ending(parent)
    wire = Wire(
        EventProducer(settings.kafka, f"emulator-{process}", delivery_timeout=None),
        Registry(settings.registry),
        SystemClock(),
        ending,
    )
    # What cannot be sent at the end was counted by then.
    with contextlib.suppress(RobotClientError), contextlib.ExitStack() as clients:
        # Episodes end at different times, as a real fleet's do.
        shift = max(1, plan.episode_steps // len(names))
        random = np.random.default_rng(process)
        robots = [
            Robot(
                clients.enter_context(_client(settings, name, folder, wire)),
                plan,
                plan.episode_steps - n * shift % plan.episode_steps,
                random,
            )
            for n, name in enumerate(names)
        ]
        gc.collect()
        gc.freeze()
        parent.send("ready")
        _drive(robots, plan, wire, ending)
    wire.flush(_FLUSH)  # clients that close tell how it ended


def _client(settings: Settings, name: str, folder: Path, wire: Wire) -> RobotClient:
    return RobotClient(settings, name, home(folder, name), outbox=WireOutbox(wire), heartbeat_interval=None)


def _drive(robots: list[Robot], plan: FleetPlan, wire: Wire, ending: Ending) -> None:
    parent = ending.parent
    try:
        start = float(parent.recv())
    except EOFError:
        return
    schedule = Schedule(len(robots), plan.hz, start)
    random = np.random.default_rng(0)
    states = random.standard_normal((_DRAWN, plan.state)).astype(np.float32)
    actions = random.standard_normal((_DRAWN, plan.action)).astype(np.float32)
    beats = _heartbeats(robots, plan.heartbeat_interval, start)
    steps, latest, reported, before = 0, 0.0, 0.0, _cpu()
    over = start + plan.seconds - _ROUNDING if plan.seconds else math.inf
    ending.until = over + _ROOM

    def counts() -> Counts:
        episodes = sum(robot.episodes for robot in robots)
        return Counts(
            steps=steps,
            skipped=schedule.skipped,
            episodes=episodes,
            unacknowledged=wire.unacknowledged,
            refused=wire.refused,
            cpu_seconds=_cpu() - before,
            seconds=schedule.due_at - start,
            latest=latest,
        )

    while schedule.due_at < over:
        if parent.poll(max(0.0, schedule.due_at - time.monotonic())):
            break  # a word, or the parent's end
        now = time.monotonic()
        if now < schedule.due_at:
            continue
        latest = max(latest, now - schedule.due_at)
        try:
            for number in schedule.next(min(now, over)):
                robots[number].step(states[(steps + number) % _DRAWN], actions[steps % _DRAWN])
                steps += 1
            next(beats)
        except SpoolFull:
            break  # to end, while Kafka takes nothing
        wire.poll()
        if now - reported >= _REPORT_EVERY:
            parent.send(counts())
            reported = now
    for robot in robots:
        with contextlib.suppress(RobotClientError):
            robot.end()
    wire.flush(_FLUSH)
    with contextlib.suppress(OSError):  # the parent may be gone
        parent.send(counts())
        parent.send("done")


def _heartbeats(robots: list[Robot], interval: float, start: float) -> Iterator[None]:
    """At each turn those heartbeats that are due, spread over the interval."""
    told = 0
    while True:
        due = int((time.monotonic() - start) / interval * len(robots))
        for number in range(max(told, due - len(robots)), due):
            robots[number % len(robots)].client.heartbeat()
        told = max(told, due)
        yield


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _allow_files(robots: int) -> None:
    """Each client holds its directory by an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = robots + 256
    if soft != resource.RLIM_INFINITY and soft < need:
        most = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
