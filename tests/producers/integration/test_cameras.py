"""From a camera to an array, on real servers: outages, kills, boots without a network."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from consumers.payload import build_payload
from infra.footage import Footage, Segments
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.settings import S3Settings, Settings
from producers.errors import Undelivered
from producers.robot import RobotClient
from schemas.events import (
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    Feature,
    FramesRecorded,
    RobotEvent,
)
from schemas.frames import steps_of
from tests.consumers.test_payload import sealed
from tests.infra.scenes import depth, psnr, scene
from tests.producers.fakes import FEATURES
from tests.producers.frames import victim
from tests.producers.integration.conftest import DEADLINE, once, telling
from tests.producers.integration.test_spool import eventually

STEPS, SIZE = 70, 224
WRIST = Feature(name="wrist", dtype="uint8", shape=(SIZE, SIZE, 3))
DEPTH = Feature(name="depth", dtype="uint16", shape=(48, 64))
SEEN, DEPTHS = scene(STEPS, SIZE), depth(STEPS)
STATE, ACTION = np.zeros(3), np.zeros(2)


# A busy machine encodes slowly; that is not on trial here, and frames that come late would be dropped.
PATIENCE = 60.0


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"robot": settings.robot.model_copy(update={"frames_patience": PATIENCE})})


def record(client: RobotClient, steps: int = STEPS) -> str:
    """The wrist in every step but 7 and 8, depth in every tenth."""
    with client.episode(
        task="push", instruction="", features=(*FEATURES, WRIST, DEPTH), fps=50.0, max_steps=500
    ) as episode:
        for step in range(steps):
            frames = {} if step in (7, 8) else {"wrist": SEEN[step]}
            if step % 10 == 0:
                frames["depth"] = DEPTHS[step]
            episode.step(state=STATE, action=ACTION, frames=frames)
            time.sleep(0.002)
        return episode.episode_id


def footage(settings: Settings, events: list[RobotEvent]) -> Footage:
    """As a learner sees it: through the payload that these events make, and the bucket."""
    done = sealed(list(events))
    payload = build_payload(done.episode, done.closed_by, 1)
    return Footage(payload.data, Segments(ObjectStore(settings.s3)))


def check(settings: Settings, events: list[RobotEvent], steps: int = STEPS) -> None:
    cameras = footage(settings, events)
    wrist, depths = cameras.read("wrist"), cameras.read("depth")
    assert wrist is not None
    assert depths is not None
    present = [step for step in range(steps) if step not in (7, 8)]
    assert np.flatnonzero(wrist.present).tolist() == present
    assert wrist.images.shape == (steps, SIZE, SIZE, 3)
    assert psnr(SEEN[present], wrist.images[present].astype(np.uint8)).min() >= 30
    assert np.flatnonzero(depths.present).tolist() == list(range(0, steps, 10))
    np.testing.assert_array_equal(depths.images[::10], DEPTHS[:steps:10])


def _has_lines(ledger: Path, more_than: int) -> bool:
    return ledger.exists() and len(ledger.read_text().splitlines()) > more_than


def encoder_of(ledger: Path) -> int:
    """The newest."""
    lines = ledger.read_text().splitlines()
    return int([line.split()[1] for line in lines if line.startswith("encoder")][-1])


def left(path: Path) -> list[Path]:
    return [found for found in (path / "spool" / "frames").iterdir() if found.is_dir()]


def test_frames_are_in_the_bucket_before_their_event_is_in_kafka_and_come_back_aligned(
    settings: Settings, tmp_path: Path
) -> None:
    with RobotClient(settings, "sees", tmp_path, close_timeout=DEADLINE) as client:
        episode_id = record(client)
        told = telling(client, settings, lambda beat: beat.episodes_ended == 1)
        assert told.frames_dropped == 0
    events = once(settings, "sees")
    check(settings, events)
    [end] = [e.body for e in events if isinstance(e, EpisodeBoundary) and isinstance(e.body, EpisodeEnded)]
    assert (end.frame_count, end.frames_dropped) == (STEPS - 2 + STEPS // 10, 0)
    keys = ObjectStore(settings.s3).list(f"frames/{episode_id}/")
    assert len(keys) == len({Path(key).name for key in keys}) == 2
    eventually(lambda: left(tmp_path) == [], "files of an episode that Kafka has stay on the disk")


def test_a_robot_that_boots_off_line_records_and_its_frames_arrive_after_the_next_boot(
    settings: Settings, tmp_path: Path
) -> None:
    dead = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9"}),
            "registry": settings.registry.model_copy(update={"url": "http://127.0.0.1:9"}),
            "s3": settings.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:9"}),
        }
    )
    with pytest.raises(Undelivered), RobotClient(dead, "sees-off-line", tmp_path, close_timeout=0.1) as client:
        record(client)
    assert len(left(tmp_path)) == 1
    RobotClient(settings, "sees-off-line", tmp_path, close_timeout=DEADLINE).close()
    check(settings, once(settings, "sees-off-line"))


def test_without_the_object_store_no_event_refers_to_what_is_not_there_and_the_heartbeat_says_so(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    fast = settings.model_copy(update={"s3": S3Settings(**{**settings.s3.model_dump(), "timeout": 2.0})})
    with RobotClient(fast, "waits", tmp_path, close_timeout=2 * DEADLINE) as client:
        stack.kill("object_store")
        try:
            record(client)
            eventually(lambda: any("takes no frames" in error for error in client._outbox.errors()), "never told")
            told = [e.body for e in once(settings, "waits") if isinstance(e, EpisodeBoundary)]
            assert [body for body in told if isinstance(body, FramesRecorded | EpisodeEnded)] == []
        finally:
            stack.restart("object_store")
    check(settings, once(settings, "waits"))


@pytest.mark.parametrize("both", [False, True], ids=["robot", "robot and encoder"])
def test_a_robot_killed_while_it_sees_loses_only_what_it_counts(
    settings: Settings, stack: Stack, tmp_path: Path, both: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    environment = stack.environment() | {"SOP_ROBOT__FRAMES_PATIENCE": str(PATIENCE)}
    robot_id = victim.ROBOT
    before = {event.episode_id for event in once(settings, robot_id)}
    for life in range(4):
        ledger = tmp_path / f"ledger-{life}"
        process = context.Process(target=victim.live, args=(environment, tmp_path / "robot", ledger, life))
        process.start()
        try:
            lines = 45 + 37 * life
            eventually(partial(_has_lines, ledger, lines), "never recorded")
            if both:
                # Stopped first: between the two kills it would end its episode, without the frames.
                robot = psutil.Process(process.pid)
                robot.suspend()
                eventually(lambda robot=robot: robot.status() == psutil.STATUS_STOPPED, "runs on")  # type: ignore[misc]
                os.kill(encoder_of(ledger), signal.SIGKILL)
        finally:
            process.kill()
            process.join()
    RobotClient(settings, robot_id, tmp_path / "robot", close_timeout=2 * DEADLINE).close()
    by_episode: dict[str, list[RobotEvent]] = defaultdict(list)
    for event in once(settings, robot_id):
        if event.episode_id not in before:
            by_episode[event.episode_id].append(event)
    ends = []
    for episode_id, events in by_episode.items():
        ledger_steps = [
            int(line.split()[1])
            for number in range(4)
            for line in (tmp_path / f"ledger-{number}").read_text().splitlines()
            if line.startswith(episode_id)
        ]
        handed = [step for step in ledger_steps if step % 3]
        end = events[-1]
        assert isinstance(end, EpisodeBoundary)
        assert isinstance(end.body, EpisodeEnded)
        ends.append(end.body.end)
        # The step that the kill fell into may be recorded, or handed over, and not in the ledger.
        assert end.body.frame_count + end.body.frames_dropped - len(handed) in (0, 1)
        view = footage(settings, events).read("depth")
        kept = [] if view is None else np.flatnonzero(view.present).tolist()
        assert set(kept) <= {*handed, len(ledger_steps)}
        assert abs(len(kept) - end.body.frame_count) <= 1
        if view is not None:
            assert view.images[kept, 0, 0].tolist() == kept
        if end.body.end is not EpisodeEnd.ABORTED:
            assert end.body.frames_dropped == 0
        elif not both:
            # A frame that was counted, and not handed over before the kill, is told as dropped; no other is.
            assert end.body.frame_count >= len(handed)
    assert 0 < ends.count(EpisodeEnd.ABORTED) <= 4, "a kill may fall between two episodes"
    told = [e.body for events in by_episode.values() for e in events if isinstance(e, EpisodeBoundary)]
    assert any(
        len(list(steps_of(segment.steps))) > 5
        for body in told
        if isinstance(body, FramesRecorded)
        for segment in body.segments
    )
