"""Frames in the bucket: those that an episode refers to are never collected, others are; what is gone is named."""

from __future__ import annotations

from datetime import timedelta

import pytest

from consumers.audit.findings import Finding, Kind, Where
from consumers.audit.gc import collect
from consumers.audit.reconcile import Options, reconcile
from infra.footage import Footage, FramesUnusable, Segments
from infra.object_store import sha256_hex
from schemas.events import EpisodeBoundary, FrameSegment, RobotEvent
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.consumers.robots import Robot, uuid7
from tests.consumers.test_footage import CAMERAS, Bucket

NO_GRACE = timedelta(0)


def stored(pipeline: Pipeline, episode_id: str, steps: list[int]) -> FrameSegment:
    """A segment in the bucket, as a robot's publisher puts it there."""
    made = Bucket()
    segment = made.segment(steps)
    assert segment.uri is not None
    uri = pipeline.objects.put(key_of(episode_id, segment), made.stored[segment.uri])
    return segment.model_copy(update={"uri": uri})


def key_of(episode_id: str, segment: FrameSegment) -> str:
    return f"frames/{episode_id}/{segment.sha256}.mkv"


def collected(pipeline: Pipeline, grace: timedelta = NO_GRACE, *, dry_run: bool = False) -> int:
    """How many objects of cameras went."""
    return collect(pipeline.settings, grace, dry_run=dry_run).objects["frames nobody refers to"]


def recorded(pipeline: Pipeline, name: str) -> tuple[list[RobotEvent], list[FrameSegment]]:
    """An episode of ten steps whose wrist saw all but two; its objects are there before its events."""
    robot = Robot(name)
    events = robot.episode(10, ends=False)
    started = events[0]
    assert isinstance(started, EpisodeBoundary)
    events[0] = started.model_copy(update={"body": started.body.model_copy(update={"features": CAMERAS})})
    segments = [stored(pipeline, started.episode_id, steps) for steps in ([0, 1, 2, 3, 4], [6, 7, 9])]
    events.append(robot.frames(started.episode_id, "wrist", segments))
    events.append(robot.end(started.episode_id, started.sequence, 10, frames_dropped=2, frame_count=8))
    return events, segments


def of_frames(pipeline: Pipeline, options: Options) -> list[Finding]:
    """What else lies on these servers is other tests' business."""
    return [found for found in reconcile(pipeline.settings, options).findings if found.where is Where.FRAMES]


def test_frames_are_kept_collected_and_missed_by_what_newest_revisions_say(pipeline: Pipeline) -> None:
    objects = pipeline.objects
    events, segments = recorded(pipeline, "camera-1")
    episode_id = events[0].episode_id
    pipeline.send(events)  # read by nobody yet
    stray = f"frames/{episode_id}/{sha256_hex(b'stray')}.mkv"
    objects.put(stray, b"stray")
    nobody = stored(pipeline, stranger := uuid7(), [0])
    notes = "frames/notes.txt"
    objects.put(notes, b"not ours")

    assert collected(pipeline, timedelta(hours=1)) == 0
    assert collected(pipeline) == 1
    assert not objects.exists(key_of(stranger, nobody))
    kept = [key_of(episode_id, segment) for segment in segments]
    assert all(objects.exists(key) for key in (*kept, stray, notes)), "their episode is still to be materialized"

    member, index = pipeline.start("materialize"), pipeline.start("index")
    wait_until(lambda: episode_id in pipeline.newest(), "announced")
    announced = pipeline.newest()[episode_id]
    assert (announced.frame_count, announced.frames_dropped, announced.frame_objects) == (8, 2, 2)
    row = f"SELECT count() FROM episodes WHERE episode_id = '{episode_id}'"
    wait_until(lambda: pipeline.query(row) == [(1,)], "indexed")
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0
    steps = pipeline.query(f"SELECT count(), min(reward) FROM episode_steps(episode_id='{episode_id}')")
    assert steps[0][0] == 10

    report = of_frames(pipeline, Options(grace=NO_GRACE, deep=True))
    assert [(f.where, f.kind, f.key) for f in report] == [(Where.FRAMES, Kind.ORPHANED, stray)]
    assert collected(pipeline, dry_run=True) == 1
    assert objects.exists(stray)
    assert collected(pipeline) == 1
    assert not objects.exists(stray)
    assert collected(pipeline) == 0
    footage = Footage(objects.get(objects.key(announced.payload_uri)), Segments(objects))
    view = footage.read("wrist")
    assert view is not None
    assert view.images[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 6, 7, 0, 9]
    assert view.present.tolist() == [True] * 5 + [False, True, True, False, True]

    whole = {key: objects.get(key) for key in kept}
    objects.delete(kept[1])
    objects.put(stray, b"as many as before")
    assert of_frames(pipeline, Options(grace=NO_GRACE)) == []
    report = of_frames(pipeline, Options(grace=NO_GRACE, deep=True))
    assert sorted((f.kind, f.key) for f in report) == [(Kind.MISSING, kept[1]), (Kind.ORPHANED, stray)]
    objects.delete(stray)
    objects.put(kept[0], b"altered")
    objects.delete(kept[1])
    shallow = of_frames(pipeline, Options())
    assert [(f.where, f.kind, f.key) for f in shallow] == [(Where.FRAMES, Kind.MISSING, kept[1])]
    deep = of_frames(pipeline, Options(deep=True))
    assert sorted((f.kind, f.key) for f in deep) == [(Kind.MISSING, kept[1]), (Kind.WRONG, kept[0])]
    with pytest.raises(FramesUnusable, match="hashes to"):
        footage.read("wrist", slice(0, 3))
    objects.delete(kept[0])
    found = of_frames(pipeline, Options())
    assert sorted(str(f.key) for f in found) == sorted(kept), "no object of the episode is left to be listed"
    for key, data in whole.items():
        objects.put(key, data)
    objects.delete(notes)
    assert of_frames(pipeline, Options(deep=True)) == []
