"""What a robot's client refuses before it is too late, and what goes wrong around it without stopping it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.policies.errors import KeyUnusable
from infra.settings import PolicySettings, RobotSettings, Settings
from producers.errors import SpoolUnusable, Undelivered
from producers.outbox import MOST_BYTES, Item
from producers.robot import RobotClient
from producers.spool.outbox import SpoolOutbox
from producers.spool.publisher import Status
from schemas.events import Feature, Heartbeat
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.producers.fakes import MemoryOutbox, ScriptedFeed, as_event, robot, started

# Bound of each wait; reached only by a failing test.
PATIENCE = 30.0

STATE, ACTION = np.arange(3, dtype=np.float32), np.arange(2, dtype=np.float32)


def step(episode: Any, **changes: Any) -> None:
    episode.step(**{"state": STATE, "action": ACTION, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"features": (Feature(name="state", shape=(300_000,)), Feature(name="action", shape=(2,)))},
        {"features": (Feature(name="state", shape=(2,)), Feature(name="action", shape=(130_950,)))},
        {"instruction": "x" * 2_000_000},
        {"task": "ß" * 600_000},
    ],
    ids=["state", "action", "instruction", "task"],
)
def test_an_episode_whose_events_no_record_holds_is_refused_before_it_begins(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with robot(tmp_path) as (client, box):
        with pytest.raises(ValueError, match=r"bytes, and robot-(steps|episodes) takes 10\d{5}: "):
            started(client, **change)
        assert not box.items
        with started(client) as episode:
            step(episode)
    assert [event.sequence for event in box.robot_events()] == [0, 1, 2]


def test_the_largest_step_that_an_episode_takes_fits_into_a_record(tmp_path: Path) -> None:
    size = (MOST_BYTES[ROBOT_STEPS] - 256) // 4 - 4
    features = (Feature(name="state", shape=(size,)), Feature(name="action", shape=(2,)))
    with (
        robot(tmp_path, robot_id="r" * 100) as (client, box),
        started(client, features=features) as episode,
        episode.intervention(operator="ada", reason="slip"),
    ):
        step(episode, state=np.ones(size), proposed_action=ACTION, policy_version=2**62)
    assert MOST_BYTES[ROBOT_STEPS] - 512 < max(len(entry.body) for entry in box.items) <= MOST_BYTES[ROBOT_STEPS]


def test_a_takeover_whose_end_might_not_fit_does_not_begin(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box), started(client) as episode:
        with pytest.raises(ValueError, match="a few words, not 70003 characters"):
            episode.intervention(operator="ada", reason="x" * 70_000).begin()
        step(episode)
    assert box.topics() == [ROBOT_EPISODES, ROBOT_STEPS, ROBOT_EPISODES]


class NoPublisher:
    """Beside a spool of which nobody hears."""

    def __init__(self, *_: object) -> None:
        self.offered: list[Item] = []

    def status(self) -> Status:
        return Status(0)

    def errors(self) -> tuple[str, ...]:
        return ()

    def offer(self, entry: Item) -> None:
        self.offered.append(entry)

    def stop(self) -> None:
        """Nothing to stop."""


@pytest.mark.parametrize("what", ["scandir", "statvfs"])
def test_a_disk_that_cannot_be_measured_is_told_and_stops_neither_heartbeats_nor_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    small = Settings(robot=RobotSettings(min_free_bytes=0))
    link = NoPublisher()
    outbox = SpoolOutbox(small, tmp_path / "spool", "arm", 1, ManualClock(), publish=lambda *_: link)
    options: dict[str, Any] = {"outbox": outbox, "clock": ManualClock(), "close_timeout": 0.0}
    client = RobotClient(small, "arm", tmp_path, heartbeat_interval=0.01, **options)
    episode = started(client)
    step(episode)

    def sick(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"producers.spool.directory.os.{what}", sick)
        client.heartbeat()
        before = len(link.offered)
        step(episode)
        until = time.monotonic() + PATIENCE
        while len(link.offered) < before + 3:
            assert time.monotonic() < until, "the background's heartbeats stopped"
            time.sleep(0.01)
        told = as_event(link.offered[before])
        assert isinstance(told, Heartbeat)
        assert any("cannot be measured: [Errno 5] Input/output error" in error for error in told.errors)
        episode.end()
        with pytest.raises(SpoolUnusable, match="cannot be measured"):
            started(client)
    with started(client) as episode:
        step(episode)
    assert client.errors() == ()
    with pytest.raises(Undelivered):
        client.close()


def test_a_heartbeat_that_fails_for_any_reason_is_followed_by_the_next(tmp_path: Path) -> None:
    class Sick(MemoryOutbox):
        asked = 0

        def depth(self) -> int:
            self.asked += 1
            raise RuntimeError("sick")

    box = Sick()
    client = RobotClient(Settings(), "arm", tmp_path, clock=ManualClock(), outbox=box, heartbeat_interval=0.01)
    until = time.monotonic() + PATIENCE
    while box.asked < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(RuntimeError):
        client.close()


def test_a_key_that_is_none_leaves_no_connection_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ScriptedFeed()
    monkeypatch.setattr("producers.robot.KafkaPolicyFeed", lambda *_: made)
    wrong = Settings(policies=PolicySettings(learner_keys=("none",)))
    with RobotClient(wrong, "arm", tmp_path, outbox=MemoryOutbox(), heartbeat_interval=None) as client:
        with pytest.raises(KeyUnusable):
            client.follow("line")
        assert made.closed
        given = ScriptedFeed()
        with pytest.raises(KeyUnusable):
            client.follow("line", feed=given)
        assert not given.closed, "it is its maker's"
