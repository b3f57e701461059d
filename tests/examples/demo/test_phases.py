"""A simulated robot from first to last, with an outbox in memory and policies from a script."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from examples.metaworld.demo.accounts import Account, discrepancies
from examples.metaworld.ledger import Ledger, LedgerReader
from examples.metaworld.phases import Berth, NoPolicy, Phase, SimulatedRobot, Stopped
from examples.metaworld.play import FEATURES
from examples.metaworld.settings import FLEET, FleetSettings
from examples.metaworld.tasks import STEP_SECONDS
from infra.clock import ManualClock, SystemClock
from infra.settings import Settings
from learner.policies import PolicySpec
from learner.policies.artifact import pack
from learner.policies.chunked import ARCHITECTURE, layer_widths
from producers.policy_inbox import PolicyInbox
from producers.robot import RobotClient
from schemas.events import (
    Actor,
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    EpisodeSource,
    EpisodeStarted,
    Heartbeat,
    Intervention,
    Step,
)
from tests.producers.fakes import BELIEVING, MemoryOutbox, ScriptedFeed, as_event

SMALL = replace(
    FLEET,
    tasks=FLEET.tasks[:2],
    demonstrations_per_task=1,
    evaluations_per_task=1,
    minutes=4.0,
    interval_minutes=2.0,
)


def idle_policy(*, whole: bool = True, told: float | None = None) -> bytes:
    """A policy that never moves: the expert has to take over. Without its weights it cannot be loaded.

    Told that its action is good it moves the hand along x: by `told`, times the guidance.
    """
    state = FEATURES[0].size
    spec = PolicySpec(
        architecture=ARCHITECTURE,
        hidden=(4,),
        features=FEATURES,
        chunk=4,
        fps=1 / STEP_SECONDS,
        tasks=tuple(task.name for task in SMALL.tasks),
        state_mean=(0.0,) * state,
        state_std=(1.0,) * state,
        conditioned=told is not None,
    )
    widths = layer_widths(spec)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for number, (fan_in, fan_out) in enumerate(pairwise(widths)):
        weights[f"layer.{number}.weight"] = np.zeros((fan_out, fan_in), np.float32)
        weights[f"layer.{number}.bias"] = np.zeros(fan_out, np.float32)
    if told is not None:
        weights["layer.0.weight"][0, -1] = 1.0
        weights["layer.1.weight"][:: spec.action_size, 0] = told
    return pack(spec, weights if whole else {})


class Learner:
    """Publishes the base at once, and version k + 1 when a robot says that it waits at boundary k."""

    def __init__(self, settings: FleetSettings, told: float | None = None) -> None:
        self.feed = ScriptedFeed()
        self.outbox = MemoryOutbox()
        self._settings = settings
        self._artifact = idle_policy(told=told)
        self._publish(0)
        self._offer = self.outbox.offer
        self.outbox.offer = self._hear  # type: ignore[method-assign]

    def _publish(self, boundary: int) -> None:
        seconds = boundary * self._settings.interval_seconds
        self.feed.publish(boundary + 1, self._artifact, policy="line", simulated_seconds=seconds)
        self._published = boundary

    def _hear(self, entry: object) -> None:
        self._offer(entry)  # type: ignore[arg-type]
        beat = as_event(entry)  # type: ignore[arg-type]
        assert isinstance(beat, Heartbeat)
        seconds = beat.simulated_seconds or 0.0
        boundary = self._published + 1
        if beat.waiting and seconds >= boundary * self._settings.interval_seconds:
            self._publish(boundary)


@contextmanager
def robot(
    tmp_path: Path,
    learner: Learner,
    stop: threading.Event | None = None,
    patience: float = 60.0,
    settings: FleetSettings = SMALL,
) -> Iterator[tuple[SimulatedRobot, PolicyInbox]]:
    with (
        Ledger(tmp_path / "ledger.jsonl") as ledger,
        RobotClient(
            Settings(policies=BELIEVING),
            "robot-1",
            tmp_path,
            clock=ManualClock(),
            outbox=learner.outbox,
            heartbeat_interval=None,
        ) as client,
    ):
        inbox = client.follow("line", feed=learner.feed)
        yield (
            SimulatedRobot(
                replace(settings, patience=patience),
                Berth(0, 1, 1),
                client=client,
                inbox=inbox,
                ledger=ledger,
                clock=SystemClock(),
                stop=stop or threading.Event(),
            ),
            inbox,
        )


def test_a_robot_s_ledger_says_what_its_events_say(tmp_path: Path) -> None:
    learner = Learner(SMALL)
    with robot(tmp_path, learner) as (simulated, _):
        for phase in Phase:
            simulated.run(phase)
    account = Account.of("robot-1", LedgerReader(tmp_path / "ledger.jsonl").refresh())
    events = learner.outbox.events()
    starts = [e for e in events if isinstance(e, EpisodeBoundary) and isinstance(e.body, EpisodeStarted)]
    assert account.started == {event.episode_id for event in starts}
    assert account.steps == sum(isinstance(event, Step) for event in events)
    assert account.interventions * 2 == sum(isinstance(event, Intervention) for event in events)
    assert account.interventions > 0
    assert [version for version, _ in account.activated] == [1, 2, 3]
    assert discrepancies({"robot-1": account}) == [
        "robot-1's ledger is not closed: not everything is known to be acknowledged"
    ]
    sources = Counter(ended.source for ended in account.ended.values())
    assert (sources[EpisodeSource.DEMONSTRATION], sources[EpisodeSource.EVALUATION]) == (2, 4)
    versions = Counter(ended.policy_version for ended in account.of_source(EpisodeSource.EVALUATION))
    assert versions == {1: 2, 3: 2}
    _check_simulated_time(account, events)


def _check_simulated_time(account: Account, events: Sequence[object]) -> None:
    online = account.of_source(EpisodeSource.ONLINE)
    ends = [ended.simulated_at or 0.0 for ended in online]
    assert ends == sorted(ends)
    # An episode that begins after a boundary is played with that boundary's version.
    for ended in online:
        began = (ended.simulated_at or 0.0) - ended.steps * STEP_SECONDS
        assert ended.policy_version == 1 + int(began // SMALL.interval_seconds)
    travelled = {
        event.episode_id: event.body.simulated_at
        for event in events
        if isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeEnded)
    }
    assert all(travelled[ended.episode_id] == ended.simulated_at for ended in account.ended.values())


def test_who_gives_an_episode_up_judges_it_to_have_failed(tmp_path: Path) -> None:
    learner = Learner(SMALL)
    with robot(tmp_path, learner) as (simulated, _):
        for phase in (Phase.DEMONSTRATIONS, Phase.EVALUATE_BASE, Phase.ONLINE):
            simulated.run(phase)
    ends = [
        event.body
        for event in learner.outbox.events()
        if isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeEnded)
    ]
    assert {(ended.end, ended.success) for ended in ends} == {
        (EpisodeEnd.TERMINATED, True),
        (EpisodeEnd.TERMINATED, False),
    }


def test_a_policy_is_guided_as_the_settings_say_at_work_and_when_it_is_judged(tmp_path: Path) -> None:
    learner = Learner(SMALL, told=0.25)
    guided = replace(SMALL, guidance=1.0, judged_guidance=3.0)
    with robot(tmp_path, learner, settings=guided) as (simulated, _):
        for phase in (Phase.EVALUATE_BASE, Phase.ONLINE, Phase.EVALUATE_LAST):
            simulated.run(phase)
    events = learner.outbox.events()
    source = {
        event.episode_id: event.body.source
        for event in events
        if isinstance(event, EpisodeBoundary) and isinstance(event.body, EpisodeStarted)
    }
    moved: dict[EpisodeSource, set[float]] = {EpisodeSource.ONLINE: set(), EpisodeSource.EVALUATION: set()}
    for event in events:
        if isinstance(event, Step) and event.actor is Actor.POLICY:
            moved[source[event.episode_id]].add(float(np.frombuffer(event.action, np.float32)[0]))
    assert moved == {EpisodeSource.ONLINE: {0.25}, EpisodeSource.EVALUATION: {0.75}}


def test_robots_share_the_fixed_set_without_overlap() -> None:
    for robots in (1, 3, 4, 8):
        parts = [number for index in range(robots) for number in Berth(index, robots, 1).share(120)]
        assert sorted(parts) == list(range(120))


def test_the_same_seed_plays_the_same_episodes(tmp_path: Path) -> None:
    bodies = []
    for name in ("a", "b"):
        learner = Learner(SMALL)
        with robot(tmp_path / name, learner) as (simulated, _):
            simulated.run(Phase.DEMONSTRATIONS)
            simulated.run(Phase.ONLINE)
        bodies.append([event.state + event.action for event in learner.outbox.events() if isinstance(event, Step)])
    assert bodies[0] == bodies[1]


def test_a_version_that_does_not_come_is_told(tmp_path: Path) -> None:
    learner = Learner(SMALL)
    with robot(tmp_path, learner, patience=0.0) as (simulated, _), pytest.raises(NoPolicy, match="second 240"):
        simulated.run(Phase.EVALUATE_LAST)


def test_a_robot_that_is_stopped_begins_no_further_episode(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    learner = Learner(SMALL)
    with robot(tmp_path, learner, stop=stop) as (simulated, _), pytest.raises(Stopped):
        simulated.run(Phase.DEMONSTRATIONS)
    assert learner.outbox.robot_events() == []


def test_a_version_that_cannot_be_loaded_is_refused_and_the_next_one_runs(tmp_path: Path) -> None:
    learner = Learner(SMALL)
    last = SMALL.intervals * SMALL.interval_seconds
    learner.feed.publish(2, idle_policy(whole=False), policy="line", simulated_seconds=last)
    hear = learner.outbox.offer
    told: list[Heartbeat] = []

    def mend(entry: object) -> None:
        beat = as_event(entry)  # type: ignore[arg-type]
        assert isinstance(beat, Heartbeat)
        if not told and any("v2: cannot be loaded" in error for error in beat.errors):
            told.append(beat)
            learner.feed.publish(3, idle_policy(), policy="line", simulated_seconds=last)
        hear(entry)  # type: ignore[arg-type]

    learner.outbox.offer = mend  # type: ignore[method-assign]
    with robot(tmp_path, learner) as (simulated, _):
        simulated.run(Phase.EVALUATE_LAST)
    account = Account.of("robot-1", LedgerReader(tmp_path / "ledger.jsonl").refresh())
    assert told
    activated = [version for version, _ in account.activated]
    assert activated[-1] == 3
    assert 2 not in activated, "the base may run between the two"
    assert {ended.policy_version for ended in account.ended.values()} == {3}
