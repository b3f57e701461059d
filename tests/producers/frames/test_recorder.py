"""The encoder's process that hangs or dies: steps go on, and what is lost is counted."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from infra.settings import RobotSettings, Settings
from infra.video import decode_segment
from producers.episode import Episode
from producers.errors import CamerasUnavailable
from producers.frames.directory import FrameDirectory
from producers.frames.link import Life
from producers.robot import RobotClient
from schemas.events import Feature
from schemas.frames import steps_of
from tests.producers.fakes import FEATURES, MemoryOutbox

DEPTH = Feature(name="depth", dtype="uint16", shape=(256, 256))
EIGHT_PLACES = Settings(robot=RobotSettings(frame_buffer_bytes=2**20, frame_segment_steps=5, frames_patience=2.0))
# More than the steps that are taken while an encoder runs: none is dropped because the disk is slow.
ROOM_FOR_ALL = Settings(robot=RobotSettings(frame_buffer_bytes=2**23, frame_segment_steps=5, frames_patience=60.0))


def robot(path: Path, settings: Settings = EIGHT_PLACES) -> RobotClient:
    return RobotClient(settings, "arm", path, outbox=MemoryOutbox(), heartbeat_interval=None)


def begin(client: RobotClient) -> Episode:
    return client.episode(task="t", instruction="", features=(*FEATURES, DEPTH), fps=50, max_steps=500)


def step(episode: Episode) -> None:
    image = np.full((256, 256), episode.step_count, np.uint16)
    episode.step(state=np.zeros(3), action=np.zeros(2), frames={"depth": image})


def life_of(client: RobotClient) -> Life:
    process = client._recorder._process
    assert process is not None
    assert process.wait_ready(60)
    assert process.life is not None
    return process.life


def whole(path: Path, episode: Episode) -> list[int]:
    """Steps that have their own frame on disk."""
    folder = FrameDirectory(path / "spool" / "frames").episode(episode.episode_id)
    found = []
    for segment in folder.segments():
        kept = decode_segment(folder.file(segment).read_bytes(), segment.codec)[:, 0, 0].tolist()
        assert kept == list(segment.steps)
        found += kept
    return found


def test_an_encoder_that_hangs_holds_no_step_up_and_what_had_no_place_is_counted(tmp_path: Path) -> None:
    with robot(tmp_path) as client:
        episode, life = begin(client), life_of(client)
        os.kill(life.process.pid, signal.SIGSTOP)
        for _ in range(40):
            step(episode)
        assert client._recorder.lost() >= 40 - 8
        assert "frames of this episode are dropped: the encoder does not keep up" in client._recorder.errors()[-1]
        episode.end()
        ended = episode.ended
        assert ended is not None
        assert (ended.step_count, ended.frame_count, ended.frames_dropped) == (40, 0, 40)
        assert client._recorder.lost() == 40

        client._recorder._settings = ROOM_FOR_ALL.robot  # this one is not to be given up
        following = begin(client)  # with another encoder
        assert life_of(client) is not life
        for _ in range(3):
            step(following)
        following.end()
        assert following.ended is not None
        assert (following.ended.frame_count, following.ended.frames_dropped) == (3, 0)
        assert client._recorder.lost() == 40


def test_an_encoder_that_is_killed_is_started_again_and_frames_between_are_counted(tmp_path: Path) -> None:
    with robot(tmp_path, ROOM_FOR_ALL) as client:
        episode, life = begin(client), life_of(client)
        for _ in range(17):
            step(episode)
            time.sleep(0.02)
        os.kill(life.process.pid, signal.SIGKILL)
        until = time.monotonic() + 60
        while client._recorder._process is not None and client._recorder._process.life in (None, life):
            assert time.monotonic() < until
            step(episode)
            time.sleep(0.02)
        first_after = episode.step_count
        for _ in range(12):
            step(episode)
            time.sleep(0.02)
        episode.end()
    ended = episode.ended
    assert ended is not None
    kept = whole(tmp_path, episode)
    assert ended.frame_count == len(kept)
    assert ended.frame_count + ended.frames_dropped == ended.step_count == episode.step_count
    assert ended.frames_dropped > 0
    assert set(range(first_after, first_after + 12)) <= set(kept)
    footage = FrameDirectory(tmp_path / "spool" / "frames").episode(episode.episode_id).footage()
    told = [s for event in footage.events for segment in event.segments for s in steps_of(segment.steps)]
    assert told == sorted(kept)


def test_an_encoder_that_cannot_start_refuses_the_episode_in_words_and_steps_go_without_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.frames.recorder._START_PATIENCE", 0.2)
    monkeypatch.setattr("producers.frames.link.sys.executable", str(tmp_path / "none"))
    with robot(tmp_path) as client:
        with pytest.raises(CamerasUnavailable, match="the encoder of frames does not start"):
            begin(client)
        with client.episode(task="t", instruction="", features=FEATURES, fps=50) as episode:
            episode.step(state=np.zeros(3), action=np.zeros(2))


def test_no_process_and_no_memory_is_taken_where_there_are_no_cameras(tmp_path: Path) -> None:
    with robot(tmp_path) as client:
        with client.episode(task="t", instruction="", features=FEATURES, fps=50) as episode:
            episode.step(state=np.zeros(3), action=np.zeros(2))
        assert client._recorder._process is None
    assert not (tmp_path / "spool" / "frames").exists()
