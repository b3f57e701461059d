"""Open episodes stay inside of `max_buffer_bytes`, and what is counted is what the process holds."""

from __future__ import annotations

import gc
import pathlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from consumers.assembly import Assembly
from consumers.decode import Decoded, StepGroup
from consumers.emitted import EmittedLog
from consumers.episode import OpenEpisode
from consumers.intake import StepRecords
from consumers.payload import ordered_steps
from consumers.spill_folder import SpillFolder
from consumers.steps import Steps
from consumers.vectors import Vectors
from schemas.events import EpisodeBoundary, EpisodeStarted, Feature, InterventionPhase, RobotEvent
from tests.consumers.robots import Log, Robot, decoded, uuid7, vector

WIDTH, ACTIONS = 32, 14
"""Floats of state and action, as the benchmark's robots have them."""
EPISODES, STEPS, HZ = 1_000, 300, 50
HOUR = 3_600 * HZ
FEATURES = (Feature(name="state", shape=(WIDTH,)), Feature(name="action", shape=(ACTIONS,)))


def start(robot: Robot) -> EpisodeBoundary:
    event = robot.start(uuid7(), features=FEATURES)
    assert isinstance(event.body, EpisodeStarted)
    return event


def steps_of(first: int, count: int) -> Steps:
    sequence = np.arange(first, first + count)
    scalars: dict[str, npt.NDArray[Any]] = {
        "sequence": sequence,
        "index": (sequence - 1).astype(np.int32),
        "captured_at": sequence * 20_000,
        "human": np.zeros(count, np.bool_),
        "policy_version": np.ones(count, np.int64),
        "reward": np.zeros(count, np.float32),
        "row": np.arange(count),
    }
    state = Vectors(np.zeros(4 * WIDTH * count, np.uint8), 4 * WIDTH, count)
    action = Vectors(np.zeros(4 * ACTIONS * count, np.uint8), 4 * ACTIONS, count)
    return Steps.of(scalars, state, action, Vectors.absent(count))


class Load:
    """A batch for each second: of each open episode some steps, as columns; offsets go on."""

    def __init__(self, starts: list[EpisodeBoundary]) -> None:
        self.starts, self._offset = starts, 0

    def group(self, at: int, first: int, count: int) -> StepGroup:
        event, offsets = self.starts[at], np.arange(self._offset, self._offset + count)
        self._offset += count
        zeros = np.zeros(count, np.int64)
        records = StepRecords.of_values([b""] * count, [b"robot"] * count, zeros, offsets, zeros)
        return StepGroup(event.episode_id, event.robot_id, event.boot_epoch, steps_of(first, count), True, records)

    def batches(self) -> Iterator[Decoded]:
        """An hour of the first episode, in 900 batches of 4 s; the others grow in the first of them, and stay."""
        per_batch = HOUR // 900
        for batch in range(900):
            groups = [self.group(0, 1 + batch * per_batch, per_batch)]
            if batch < STEPS // 15:
                groups += [self.group(at, 1 + batch * 15, 15) for at in range(1, len(self.starts))]
            yield Decoded(groups=groups)


def held(assembly: Assembly) -> int:
    return sum(episode.nbytes + episode.kept_bytes for episode in assembly.open.values())


def traced() -> int:
    """Bytes that are held; without pathlib, whose names may make the interpreter's table of strings grow."""
    elsewhere = tracemalloc.Filter(inclusive=False, filename_pattern=pathlib.__file__)
    found = tracemalloc.take_snapshot().filter_traces([elsewhere])
    return sum(trace.size for trace in found.traces)


def test_a_thousand_open_episodes_and_one_of_an_hour_at_50_hz_stay_inside_of_the_limit(tmp_path: Path) -> None:
    limit = 32 * 2**20
    robots = [Robot(f"robot-{n}") for n in range(EPISODES + 1)]
    starts = [start(robot) for robot in robots]
    load, log, assembly, folder = Load(starts), Log(), Assembly(EmittedLog(), 600.0), SpillFolder(tmp_path)
    gc.collect()
    tracemalloc.start()
    before = traced()
    assembly.add(decoded([log.append(event) for event in starts]))
    most = 0
    for number, batch in enumerate(load.batches()):
        assembly.add(batch)
        batch.groups.clear()
        folder.make_room(assembly.open.values(), limit)
        assert held(assembly) <= limit
        if number % 75 == 0:
            gc.collect()  # how long cycles lie about depends on all that this process did before
            most = max(most, traced() - before)
    tracemalloc.stop()
    assert len(assembly.open) == EPISODES + 1
    assert most <= 1.25 * limit, "what is counted is not all that is held"
    long, other = (assembly.open[event.episode_id] for event in starts[:2])
    assert long.size > HOUR * 4 * (WIDTH + ACTIONS)
    assert len(ordered_steps(other.steps.steps())) == STEPS
    steps = ordered_steps(long.steps.steps())
    assert steps.sequence.tolist() == list(range(1, HOUR + 1))
    folder.close()


def grown(events: list[RobotEvent]) -> tuple[OpenEpisode, int]:
    """The one open episode of these events, and what it holds of memory."""
    log, assembly = Log(), Assembly(EmittedLog(), 600.0)
    assembly.add(decoded([log.append(event) for event in events[:2]]))  # what is loaded once is loaded
    gc.collect()
    tracemalloc.start()
    assembly.add(decoded([log.append(event) for event in events[2:]]))
    log.records.clear()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    [episode] = assembly.open.values()
    return episode, used


@pytest.mark.parametrize("kind", ["interventions", "misfits", "early steps"])
def test_what_is_no_step_is_counted_too(kind: str) -> None:
    robot, episode_id = Robot(), uuid7()
    events: list[RobotEvent] = [robot.start(episode_id)]
    for index in range(400):
        if kind == "interventions":
            events.append(robot.intervention(episode_id, uuid7(), InterventionPhase.BEGIN, index))
        else:
            wrong = {"state": vector(100, 0.0)} if kind == "misfits" else {}
            events.append(robot.step(episode_id, index, **wrong))
    episode, used = grown(events if kind != "early steps" else events[1:])
    counted = episode.nbytes + episode.kept_bytes
    assert used <= 1.25 * counted
    assert counted <= 4 * used
