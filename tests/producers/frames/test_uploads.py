"""An event waits for its objects; what the store refuses is tried again; files go with the episode's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.clock import ManualClock
from infra.errors import ObjectStoreUnavailable
from producers.frames.directory import EpisodeFolder, FrameDirectory
from producers.frames.uploads import REFRESH, FrameUploads
from producers.outbox import item
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.segment import Row
from schemas.events import EpisodeEnd, EpisodeEnded, RobotEvent
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.consumers.robots import Robot
from tests.producers.frames.test_directory import EPISODE, begun, encoder, image


class Store:
    """A bucket that can be away, or slow."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts = 0
        self.inside = 0
        self.away = False
        self.refuses: set[str] = set()
        self._lock = threading.Lock()
        self.open = threading.Event()
        self.open.set()

    def key(self, uri: str) -> str:
        return uri.removeprefix("s3://sop/")

    def put(self, key: str, data: bytes) -> str:
        with self._lock:
            self.inside += 1
        try:
            assert self.open.wait(30)
            if self.away or key in self.refuses:
                raise ObjectStoreUnavailable("no answer")
        finally:
            with self._lock:
                self.inside -= 1
        with self._lock:
            self.puts += 1
            self.objects[key] = data
        return key


class World:
    """A robot's folder with one recorded episode, and what its publisher would ask."""

    def __init__(self, path: Path) -> None:
        self.folder: EpisodeFolder = begun(path)
        encoding = encoder(self.folder, [])
        for step in range(10):
            encoding.add(0, step, image(step))
        encoding.finish()
        self.store, self.clock = Store(), ManualClock()
        self.uploads = FrameUploads(FrameDirectory(path), lambda: self.store, self.clock)
        robot = Robot()
        bodies: list[Any] = [
            *self.folder.footage().events,
            EpisodeEnded(first_sequence=0, end=EpisodeEnd.ABORTED, step_count=10, intervention_count=0),
        ]
        start = robot.start(EPISODE)
        self.rows = [
            row(n, start.model_copy(update={"body": body, "sequence": n})) for n, body in enumerate(bodies, 1)
        ]

    def until(self, what: Callable[[], bool]) -> None:
        limit = time.monotonic() + 30
        while not what():
            assert time.monotonic() < limit
            time.sleep(0.005)

    def until_refused(self) -> None:
        """Until a put has failed, and none is under way any more."""

        def refused() -> bool:
            assert not self.uploads.ready(self.rows[0])
            under_way = any(put.under_way for put in self.uploads._puts.values())
            return self.uploads.error() is not None and not under_way

        self.until(refused)


def row(position: int, event: RobotEvent) -> Row:
    entry = item(ROBOT_EPISODES, event.robot_id, event, b"", 0.0)
    return Row(position, entry.key, NEWEST_KINDS[ROBOT_EPISODES], 0.0, b"", entry.body)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_event_waits_until_all_its_objects_are_there_and_the_files_stay_until_the_end_is_acknowledged(
    world: World,
) -> None:
    frames, end = world.rows
    world.store.open.clear()
    assert not world.uploads.ready(frames)
    assert world.uploads.ready(Row(9, b"r", NEWEST_KINDS[ROBOT_STEPS], 0.0, b"", b"any step"))
    world.store.open.set()
    world.until(lambda: world.uploads.ready(frames))
    segments = world.folder.segments()
    assert sorted(world.store.objects) == sorted(f"frames/e/{world.folder.file(s).name}" for s in segments)
    assert world.uploads.ready(end)
    world.uploads.acknowledged(frames.position)
    assert world.folder.path.is_dir()
    world.uploads.acknowledged(end.position)
    assert not world.folder.path.exists()
    assert world.store.puts == len(segments) == 3


def test_a_store_that_is_away_is_told_and_waited_out_with_growing_pauses(world: World) -> None:
    frames = world.rows[0]
    world.store.away = True
    world.until_refused()
    assert "takes no frames, they are tried again: no answer" in str(world.uploads.error())
    world.store.away = False
    for _ in range(20):
        assert not world.uploads.ready(frames)  # the pause is not over
    world.clock.advance(31.0)
    world.until(lambda: world.uploads.ready(frames))
    assert world.uploads.error() is None


def test_what_was_put_is_not_put_again_because_another_one_failed(world: World) -> None:
    frames = world.rows[0]
    refused, *others = (f"frames/e/{world.folder.file(segment).name}" for segment in world.folder.segments())
    world.store.refuses = {refused}
    world.until(lambda: not world.uploads.ready(frames) and world.uploads.error() is not None)
    world.until(lambda: sorted(world.store.objects) == sorted(others))
    world.store.refuses.clear()
    world.clock.advance(31.0)
    world.until(lambda: world.uploads.ready(frames))
    assert (world.store.puts, len(world.store.objects)) == (3, 3)
    assert world.uploads.error() is None


def test_after_a_failure_fewer_go_at_once_so_that_a_slow_link_brings_one_in_time(world: World) -> None:
    frames = world.rows[0]
    world.store.open.clear()
    world.until(lambda: not world.uploads.ready(frames) and world.store.inside == 3)
    world.store.away = True
    world.store.open.set()
    world.until_refused()
    assert world.uploads._at_once == 1
    world.store.open.clear()
    world.store.away = False
    world.clock.advance(31.0)
    world.until(lambda: not world.uploads.ready(frames) and world.store.inside > 0)
    for _ in range(20):
        assert not world.uploads.ready(frames)
        time.sleep(0.005)
    assert world.store.inside == 1
    world.store.open.set()
    world.until(lambda: world.uploads.ready(frames))
    assert len(world.store.objects) == 3


def test_objects_that_kafka_let_wait_for_too_long_are_put_again_before_their_files_go(world: World) -> None:
    """`sop gc` may have collected them meanwhile: nobody knew who would refer to them."""
    frames, end = world.rows
    world.until(lambda: world.uploads.ready(frames) and world.uploads.ready(end))
    world.store.objects.clear()
    world.clock.advance(REFRESH + 1)
    world.store.open.clear()
    world.uploads.acknowledged(end.position)
    assert world.folder.path.is_dir()
    world.store.open.set()

    def gone() -> bool:
        world.uploads.acknowledged(end.position)
        return not world.folder.path.exists()

    world.until(gone)
    assert len(world.store.objects) == 3


def test_an_event_whose_files_are_gone_was_sent_before_and_is_not_held_up(world: World) -> None:
    world.folder.remove()
    for one in world.rows:
        world.until(lambda one=one: world.uploads.ready(one))  # type: ignore[misc]
    assert world.store.puts == 0


def test_another_bucket_s_address_is_an_error_in_words_and_no_crash(world: World) -> None:
    def other(uri: str) -> str:
        raise ValueError(f"{uri} is not in bucket other")

    world.store.key = other  # type: ignore[method-assign]
    world.until(lambda: not world.uploads.ready(world.rows[0]) and world.uploads.error() is not None)
    assert "is not in bucket other" in str(world.uploads.error())


def test_what_is_no_event_is_not_held_up(world: World) -> None:
    assert world.uploads.ready(Row(1, b"r", NEWEST_KINDS[ROBOT_EPISODES], 0.0, b"", b"\xff"))
