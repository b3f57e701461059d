"""What is no camera, and what is no frame of one: refused in words, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.settings import RobotSettings, Settings
from producers.errors import SpoolFull
from producers.frames.camera import Camera
from producers.robot import RobotClient
from producers.spool.outbox import SpoolOutbox
from schemas.events import Feature
from tests.producers.fakes import FEATURES, MemoryOutbox
from tests.producers.spool.parts import NoPublisher

WRIST = Feature(name="wrist", dtype="uint8", shape=(32, 48, 3))
DEPTH = Feature(name="depth", dtype="uint16", shape=(20, 30))
GOOD = np.zeros((32, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dtype": "uint8", "shape": (32, 48)}, "colour is uint8"),
        ({"dtype": "uint8", "shape": (32, 48, 4)}, "colour is uint8"),
        ({"dtype": "uint16", "shape": (32, 48, 3)}, "depth is uint16"),
        ({"shape": (31, 48, 3)}, "even heights and widths only"),
        ({"shape": (8, 48, 3)}, "16 to 8192 pixels"),
        ({"shape": (32, 8194, 3)}, "16 to 8192 pixels"),
        ({"name": "a/b"}, "a name is letters"),
        ({"names": ("r",)}, "pixels have none"),
    ],
)
def test_a_feature_that_is_no_camera_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Camera.of(WRIST.model_copy(update=changes))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RobotClient]:
    """A client for an episode after the other, with one encoder: it takes a second to start."""
    patient = Settings(robot=RobotSettings(frames_patience=60.0))
    path = tmp_path_factory.mktemp("robot")
    with RobotClient(patient, "arm", path, outbox=MemoryOutbox(), heartbeat_interval=None) as client:
        yield client


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ({"wrist": GOOD.astype(np.float32)}, r"is float32\[32, 48, 3\]; the episode's feature says uint8"),
        ({"wrist": GOOD[:30]}, r"uint8\[30, 48, 3\]; .*keeps its size for a whole episode"),
        ({"wrist": GOOD[..., 0]}, r"uint8\[32, 48\]"),
        ({"wrist": GOOD.tolist()}, "is a list, not a numpy array"),
        ({"depth": np.zeros((20, 30), np.int16)}, r"is int16\[20, 30\]"),
        ({"wrist": GOOD, "front": GOOD}, "has no camera 'front'; its features name depth, wrist"),
    ],
)
def test_a_bad_frame_in_the_middle_of_an_episode_is_refused_and_its_step_is_not_recorded(
    seeing: RobotClient, frames: dict[str, Any], text: str
) -> None:
    with seeing.episode(
        task="t", instruction="", features=(*FEATURES, WRIST, DEPTH), fps=50, max_steps=10
    ) as episode:
        episode.step(state=np.zeros(3), action=np.zeros(2), frames={"wrist": GOOD})
        with pytest.raises(ValueError, match=text):
            episode.step(state=np.zeros(3), action=np.zeros(2), frames=frames)
        episode.step(state=np.zeros(3), action=np.zeros(2), frames={"wrist": GOOD})
    assert episode.step_count == 2
    assert episode.ended is not None
    assert (episode.ended.frame_count, episode.ended.frames_dropped) == (2, 0)


def test_frames_without_a_camera_among_the_features_are_refused(tmp_path: Path) -> None:
    with (
        RobotClient(Settings(), "arm", tmp_path, outbox=MemoryOutbox(), heartbeat_interval=None) as client,
        client.episode(task="t", instruction="", features=FEATURES, fps=50) as episode,
        pytest.raises(ValueError, match="no feature of the episode describes a camera"),
    ):
        episode.step(state=np.zeros(3), action=np.zeros(2), frames={"wrist": GOOD})


def test_frames_too_large_for_the_memory_that_is_set_aside_are_refused_at_the_start(tmp_path: Path) -> None:
    settings = Settings(robot=RobotSettings(frame_buffer_bytes=2**20))
    large = Feature(name="wrist", dtype="uint8", shape=(480, 640, 3))
    with (
        RobotClient(settings, "arm", tmp_path, outbox=MemoryOutbox(), heartbeat_interval=None) as client,
        pytest.raises(ValueError, match="raise SOP_ROBOT__FRAME_BUFFER_BYTES"),
    ):
        client.episode(task="t", instruction="", features=(*FEATURES, large), fps=50)


def test_frames_that_would_not_fit_beside_the_steps_are_refused_at_the_start(tmp_path: Path) -> None:
    settings = Settings(robot=RobotSettings(max_spool_bytes=30 * 2**20, min_free_bytes=0))
    large = Feature(name="wrist", dtype="uint8", shape=(480, 640, 3))
    spool = SpoolOutbox(settings, tmp_path / "spool", "arm", 1, ManualClock(), publish=NoPublisher)
    with RobotClient(
        settings, "arm", tmp_path, outbox=spool, heartbeat_interval=None, close_timeout=0.1
    ) as client:
        with pytest.raises(SpoolFull, match=r"1000 steps, ever: max_steps=1000 .* MiB of it for frames"):
            client.episode(task="t", instruction="", features=(*FEATURES, large), fps=50, max_steps=1_000)
        client.episode(task="t", instruction="", features=FEATURES, fps=50, max_steps=1_000).end()
        spool.depth = lambda: 0  # type: ignore[method-assign] # nobody is there to take it
