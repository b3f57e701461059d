"""What a robot's client refuses before it is too late, and what goes wrong around it without stopping it."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.policies.errors import KeyUnusable
from infra.settings import PolicySettings, RobotSettings, Settings
from producers.boot import DataDir
from producers.errors import ClientClosed, SpoolFull, SpoolUnusable, Undelivered
from producers.outbox import MOST_BYTES
from producers.policy_feed import Heard
from producers.policy_store import PolicyFile
from producers.robot import RobotClient
from producers.spool.outbox import SpoolOutbox
from schemas.events import Feature, Heartbeat
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.producers.fakes import MemoryOutbox, ScriptedFeed, announcement, as_event, robot, sent, started
from tests.producers.spool.parts import NoPublisher

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


def test_a_closed_client_records_and_follows_nothing_and_says_so(tmp_path: Path) -> None:
    with robot(tmp_path) as (client, box):
        with started(client) as episode:
            step(episode)
        count = len(box.items)
    file = PolicyFile(sent(announcement(1, b"policy")).event, tmp_path / "policy")
    for late in (
        lambda: started(client),
        lambda: client.follow("line", feed=ScriptedFeed()),
        lambda: client.activate(file),
        client.require_no_episode,
    ):
        with pytest.raises(ClientClosed, match="the client of robot-1 was closed; make a new one"):
            late()
    assert len(box.items) == count
    client.close()


def test_closing_waits_for_an_inbox_no_longer_than_it_was_told_to(tmp_path: Path) -> None:
    answers = threading.Event()

    class Silent(ScriptedFeed):
        def poll(self, timeout: float) -> list[Heard]:
            answers.wait(PATIENCE)
            return []

    box, feed = MemoryOutbox(), Silent()
    client = RobotClient(Settings(), "arm", tmp_path, outbox=box, heartbeat_interval=None)
    client.follow("line", feed=feed)
    before = time.monotonic()
    client.close(0.2)
    assert time.monotonic() - before < PATIENCE, "it waited until the server answered"
    assert not feed.closed
    answers.set()
    until = time.monotonic() + PATIENCE
    while not feed.closed:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_ctrl_c_while_kafka_is_waited_for_ends_the_waiting(tmp_path: Path) -> None:
    class Interrupted(MemoryOutbox):
        def drain(self, timeout: float) -> None:
            super().drain(timeout)
            raise KeyboardInterrupt

    box = Interrupted()
    client = RobotClient(Settings(), "arm", tmp_path, outbox=box, heartbeat_interval=None)
    with pytest.raises(KeyboardInterrupt):
        client.close(1_000.0)
    assert box.drained_for is not None
    assert box.drained_for > 900.0
    assert box.closed_with == 0.0
    DataDir(tmp_path).release()


def test_on_a_disk_without_room_for_the_spool_the_advice_is_to_free_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("producers.spool.segment._os_write", full)
    with pytest.raises(SpoolFull, match=r"cannot be opened: .*No space left.* Free some MiB on its disk, outside"):
        RobotClient(Settings(), "arm", tmp_path)
    DataDir(tmp_path).release()


def test_a_client_in_a_forked_process_records_nothing_and_leaves_the_parent_s_alone(tmp_path: Path) -> None:
    settings = Settings(robot=RobotSettings(min_free_bytes=0))
    outbox = SpoolOutbox(settings, tmp_path / "spool", "arm", 1, ManualClock(), publish=lambda *_: NoPublisher())
    client = RobotClient(settings, "arm", tmp_path, outbox=outbox, heartbeat_interval=None, close_timeout=0.0)
    episode = started(client)
    step(episode)
    child = os.fork()
    if child == 0:
        refused = 0
        for late in (lambda: step(episode), lambda: started(client)):
            try:
                late()
            except (SpoolUnusable, ClientClosed):
                refused += 1
        client.close()
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    step(episode)
    episode.end()
    with pytest.raises(Undelivered, match="4 events"):
        client.close()
