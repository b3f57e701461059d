from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clock import ManualClock
from learner.barrier import Barrier, Opening, due, in_order
from schemas.events import EpisodeMaterialized, EpisodeSource, Heartbeat
from tests.learner.synthetic import START, make_episode

INTERVAL, PATIENCE = 100.0, 30.0


@dataclass(frozen=True)
class Carried:
    event: EpisodeMaterialized


def heartbeat(
    robot: str, seconds: float | None, *, waiting: bool = False, ended: int = 0, boot: int = 1
) -> Heartbeat:
    return Heartbeat(
        robot_id=robot,
        boot_epoch=boot,
        reported_at=START,
        spool_depth=0,
        spool_age_seconds=0.0,
        policy="default",
        policy_version=1,
        episodes_ended=ended,
        simulated_seconds=seconds,
        waiting=waiting,
    )


def barrier(robots: int, clock: ManualClock | None = None) -> Barrier:
    return Barrier(interval=INTERVAL, robots=robots, patience=PATIENCE, clock=clock or ManualClock())


def test_boundary_opens_once_every_robot_waits_and_its_episodes_were_seen() -> None:
    gate = barrier(2)
    gate.hear(heartbeat("a", 104.0, waiting=True, ended=1))
    gate.hear(heartbeat("b", 40.0))
    assert gate.decide() is None
    gate.hear(heartbeat("b", 101.0, waiting=True, ended=0))
    assert gate.decide() is None, "an episode of robot a is still on its way"
    gate.see(make_episode(1, robot="a").event)
    assert gate.decide() == Opening(1, 100.0, (), ())
    assert gate.decide() is None, "the next boundary is not reached"


def test_demonstrations_and_other_boots_do_not_count_as_ended_episodes() -> None:
    gate = barrier(1)
    gate.hear(heartbeat("a", 100.0, waiting=True, ended=1, boot=2))
    gate.see(make_episode(1, robot="a", boot_epoch=2, source=EpisodeSource.DEMONSTRATION).event)
    gate.see(make_episode(2, robot="a", boot_epoch=1).event)
    assert gate.decide() is None
    gate.see(make_episode(3, robot="a", boot_epoch=2).event)
    assert gate.decide() is not None


def test_revisions_of_one_episode_count_once() -> None:
    gate = barrier(1)
    gate.hear(heartbeat("a", 100.0, waiting=True, ended=2))
    gate.see(make_episode(1, robot="a", revision=1).event)
    gate.see(make_episode(1, robot="a", revision=2).event)
    assert gate.decide() is None


def test_silent_robot_leaves_and_the_others_go_on() -> None:
    clock = ManualClock()
    gate = barrier(2, clock)
    gate.hear(heartbeat("a", 50.0))
    gate.hear(heartbeat("b", 100.0, waiting=True))
    clock.advance(PATIENCE)
    gate.hear(heartbeat("b", 100.0, waiting=True))
    assert gate.decide() is None
    clock.advance(1.0)
    opening = gate.decide()
    assert opening is not None
    assert opening.left == ("a",)


def test_robot_that_works_and_says_so_is_waited_for_without_end() -> None:
    clock = ManualClock()
    gate = barrier(2, clock)
    for _ in range(100):
        gate.hear(heartbeat("a", 50.0))
        gate.hear(heartbeat("b", 100.0, waiting=True))
        assert gate.decide() is None
        clock.advance(PATIENCE / 2)


def test_robot_never_heard_of_is_waited_for_as_long_as_the_patience() -> None:
    clock = ManualClock()
    gate = barrier(2, clock)
    clock.advance(PATIENCE)
    gate.hear(heartbeat("a", 100.0, waiting=True))
    assert gate.decide() is None
    clock.advance(0.1)
    assert gate.decide() is not None


def test_missing_episodes_are_waited_for_as_long_as_the_patience_and_then_named() -> None:
    clock = ManualClock()
    gate = barrier(1, clock)
    for _ in range(4):
        gate.hear(heartbeat("a", 100.0, waiting=True, ended=2))
        assert gate.decide() is None
        clock.advance(PATIENCE / 4)
    gate.hear(heartbeat("a", 100.0, waiting=True, ended=2))
    assert gate.decide() is None
    clock.advance(0.1)
    opening = gate.decide()
    assert opening is not None
    assert opening.missing == (("a", 2),)


def test_with_nobody_there_the_boundary_stays_shut() -> None:
    clock = ManualClock()
    gate = barrier(1, clock)
    gate.hear(heartbeat("a", 1000.0, waiting=True))
    clock.advance(PATIENCE + 1)
    assert gate.decide() is None
    assert barrier(0).decide() is None


def test_old_heartbeats_and_robots_without_simulated_time_take_no_part() -> None:
    gate = barrier(1)
    gate.hear(heartbeat("gone", 500.0), age=PATIENCE + 1)
    gate.hear(heartbeat("real", None))
    gate.hear(heartbeat("a", 100.0, waiting=True), age=1.0)
    opening = gate.decide()
    assert opening is not None
    assert opening.left == ()


def test_earlier_boot_does_not_replace_the_newer() -> None:
    gate = barrier(1)
    gate.hear(heartbeat("a", 10.0, boot=2))
    gate.hear(heartbeat("a", 100.0, waiting=True, boot=1))
    assert gate.decide() is None


def test_robot_far_ahead_is_taken_through_each_boundary_in_turn() -> None:
    gate = barrier(1)
    gate.hear(heartbeat("a", 310.0, waiting=True))
    numbers = [opening.number for opening in iter(gate.decide, None)]
    assert numbers == [1, 2, 3]


def test_episodes_that_ended_after_the_boundary_wait_for_the_next() -> None:
    early, late = (Carried(make_episode(n, simulated_ended_at=t).event) for n, t in ((1, 100.0), (2, 100.5)))
    assert due([late, early], 100.0) == [early]
    assert due([late, early], 200.0) == [early, late]


def test_episode_without_simulated_time_is_due_at_once() -> None:
    demonstration = Carried(make_episode(1, source=EpisodeSource.DEMONSTRATION).event)
    assert due([demonstration], 100.0) == [demonstration]


@dataclass(frozen=True)
class Run:
    """What the simulated fleet does by itself: episode lengths by robot."""

    lengths: dict[str, list[float]]
    boundaries: int


@st.composite
def runs(draw: st.DrawFn) -> Run:
    robots = draw(st.integers(1, 4))
    lengths = {f"robot-{n}": draw(st.lists(st.floats(5.0, 250.0), min_size=1, max_size=12)) for n in range(robots)}
    return Run(lengths, boundaries=draw(st.integers(1, 5)))


def versions(run: Run, order: random.Random) -> list[tuple[int, tuple[str, ...]]]:
    """What each version is trained on, with heartbeats and announcements arriving in an order of chance."""
    gate = barrier(len(run.lengths))
    clocks = dict.fromkeys(run.lengths, 0.0)
    ended = dict.fromkeys(run.lengths, 0)
    reached = 0
    waiting: dict[str, Carried] = {}
    on_the_way: list[EpisodeMaterialized] = []
    outboxes: dict[str, list[Heartbeat]] = {robot: [] for robot in run.lengths}
    found: list[tuple[int, tuple[str, ...]]] = []
    while len(found) < run.boundaries:
        robot = order.choice(sorted(run.lengths))
        if clocks[robot] < (reached + 1) * INTERVAL:
            length = run.lengths[robot][ended[robot] % len(run.lengths[robot])]
            clocks[robot] += length
            number = sorted(run.lengths).index(robot) * 10_000 + ended[robot]
            on_the_way.append(
                make_episode(number, robot=robot, steps=1, human=None, simulated_ended_at=clocks[robot]).event
            )
            ended[robot] += 1
        arrived = clocks[robot] >= (reached + 1) * INTERVAL
        outboxes[robot].append(heartbeat(robot, clocks[robot], waiting=arrived, ended=ended[robot]))
        for _ in range(order.randint(0, 3)):
            if on_the_way:
                event = on_the_way.pop(order.randrange(len(on_the_way)))
                waiting[event.episode_id] = Carried(event)
                gate.see(event)
            sender = outboxes[order.choice(sorted(outboxes))]
            if sender:
                gate.hear(sender.pop(0))
        opening = gate.decide()
        if opening is not None:
            admitted = due(waiting.values(), opening.simulated_seconds)
            for carried in admitted:
                del waiting[carried.event.episode_id]
            found.append((opening.number, tuple(carried.event.episode_id for carried in admitted)))
            reached = opening.number
    return found


@settings(max_examples=40, deadline=None)
@given(runs(), st.integers(0, 2**32), st.integers(0, 2**32))
def test_versions_do_not_depend_on_the_order_of_arrival(run: Run, one: int, other: int) -> None:
    first = versions(run, random.Random(one))
    assert first == versions(run, random.Random(other))
    assert [number for number, _ in first] == list(range(1, run.boundaries + 1))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)))
def test_order_of_admission_is_by_simulated_end_then_robot_then_the_robots_own_order(order: list[int]) -> None:
    events = [
        make_episode(n, robot=robot, steps=1, human=None, simulated_ended_at=ended).event
        for n, (ended, robot) in enumerate(itertools.product((50.0, 60.0), ("a", "b", "b")))
    ]
    assert [c.event for c in in_order([Carried(events[n]) for n in order])] == events
