"""One aligned frame for each step and camera: whatever was dropped, in whatever segments the others lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.dead_letters import Reason
from consumers.footage import placed
from consumers.payload import Payload, build_payload, read_payload
from consumers.revision import merged, reopened
from infra.footage import Footage, FramesUnusable, Place, Segments
from infra.object_store import sha256_hex
from infra.video import SegmentWriter
from schemas import codec
from schemas.events import EpisodeBoundary, Feature, FrameSegment, FramesRecorded
from schemas.frames import FFV1, ranges_of
from tests.consumers.robots import FEATURES, Log, Robot, decoded
from tests.consumers.test_payload import sealed

CAMERAS = (
    *FEATURES,
    Feature(name="wrist", dtype="uint16", shape=(16, 16)),
    Feature(name="top", dtype="uint16", shape=(16, 16)),
)


class Bucket(Segments):
    """Segments by address; images whose every pixel is the step's number."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.asked: list[str] = []

    def segment(self, steps: list[int], *, inline: bool = False, codec: str = FFV1) -> FrameSegment:
        writer = SegmentWriter(FFV1, 16, 16)
        for step in steps:
            writer.add(np.full((16, 16), step, np.uint16))
        data = writer.finish()
        uri = f"s3://sop/frames/{len(self.stored)}"
        self.stored[uri] = data
        return FrameSegment(
            sha256=sha256_hex(data),
            size_bytes=len(data),
            codec=codec,
            steps=ranges_of(steps),
            uri=None if inline else uri,
            data=data if inline else None,
        )

    def get(self, place: Place) -> bytes:
        self.asked.append(place.sha256)
        return self.stored[place.uri] if place.uri else place.data or b""


def episode(
    steps: int, footage: list[tuple[str, list[FrameSegment]]], robot: Robot | None = None
) -> list[EpisodeBoundary]:
    robot = robot or Robot()
    events = robot.episode(steps, ends=False)
    started = events[0]
    assert isinstance(started, EpisodeBoundary)
    events[0] = started.model_copy(update={"body": started.body.model_copy(update={"features": CAMERAS})})
    for camera, segments in footage:
        events.append(robot.frames(started.episode_id, camera, segments))
    events.append(robot.end(started.episode_id, started.sequence, steps, frames_dropped=4))
    return events  # type: ignore[return-value]


def payload(events: list[EpisodeBoundary]) -> Payload:
    done = sealed(list(events))
    return build_payload(done.episode, done.closed_by, 1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 40), min_size=1)), max_size=6),
    st.permutations(range(41)),
)
def test_a_step_finds_the_frame_that_was_taken_with_it_and_none_if_there_is_none(
    parts: list[tuple[int, set[int]]], rows: list[int]
) -> None:
    """Against the plain definition: the first segment that names the step, at the step's place in it."""
    robot = Robot()
    segments = [
        FrameSegment(
            sha256=f"{n:064x}", size_bytes=1, codec=FFV1, steps=ranges_of(sorted(steps)), uri=f"s3://sop/{n}"
        )
        for n, (_, steps) in enumerate(parts)
    ]
    events = [robot.frames("e", "wrist", [segment]) for segment in segments]
    other = robot.frames("e", "top", segments[::-1])
    found = placed("wrist", [other, *events], np.array(rows, np.int32))
    for row, step in enumerate(rows):
        first = next((n for n, (_, steps) in enumerate(parts) if step in steps), None)
        assert (found.segment[row] >= 0) == (first is not None)
        if first is not None:
            assert found.segments[found.segment[row]] == segments[first]
            assert sorted(parts[first][1])[found.index[row]] == step


@settings(deadline=None, max_examples=25)
@given(st.sets(st.integers(0, 29)), st.integers(1, 12))
def test_dropped_frames_leave_holes_and_shift_nothing(dropped: set[int], length: int) -> None:
    bucket = Bucket()
    kept = [step for step in range(30) if step not in dropped]
    cut = [[s for s in kept if s // length == n] for n in range(30)]
    segments = [bucket.segment(steps, inline=len(steps) == 1) for steps in cut if steps]
    made = payload(episode(30, [("wrist", segments)]))

    footage = Footage(made.data, bucket)
    assert footage.cameras == ("wrist", "top")
    assert footage.read("top") is None
    view = footage.read("wrist")
    if view is None:
        assert not kept
        return
    assert view.images.shape == (30, 16, 16)
    assert np.flatnonzero(view.present).tolist() == kept
    assert view.images[:, 3, 3].tolist() == [step if step in kept else 0 for step in range(30)]
    assert made.facts.frame_count == len(kept)
    assert made.facts.frames_dropped == 4
    assert made.facts.frame_objects == len({s.uri for s in segments if s.uri})


def test_only_the_segments_of_the_wanted_rows_are_fetched() -> None:
    bucket = Bucket()
    first, second = bucket.segment([0, 1, 2]), bucket.segment([3, 5])
    footage = Footage(payload(episode(6, [("wrist", [first, second])])).data, bucket)
    view = footage.read("wrist", slice(4, 6))
    assert view is not None
    assert view.present.tolist() == [False, True]
    assert view.images[1, 0, 0] == 5
    assert bucket.asked == [second.sha256]


def test_a_payload_with_cameras_is_read_back_and_written_again_as_the_same_file() -> None:
    bucket = Bucket()
    made = payload(episode(4, [("top", [bucket.segment([1, 2])]), ("wrist", [bucket.segment([3], inline=True)])]))
    again = build_payload(reopened(read_payload(made.data)), made.facts.closed_by, 1)
    assert again.data == made.data


def test_frames_that_come_after_their_episode_was_closed_are_in_its_next_revision() -> None:
    bucket = Bucket()
    events = episode(4, [("wrist", [bucket.segment([0, 1, 2, 3])])])
    early = sealed(list(events[:5]), timeout=True)
    stored = read_payload(build_payload(early.episode, early.closed_by, 1).data)
    assert stored.facts.frame_count == 0
    late = sealed(list(events[5:]), timeout=True)
    union, dead = merged(stored, late.episode)
    assert dead == []
    assert union is not None
    made = build_payload(union, union.closed_by() or early.closed_by, 2)
    assert (made.facts.frame_count, made.facts.closed_by) == (4, "COMPLETE")
    view = Footage(made.data, bucket).read("wrist")
    assert view is not None
    assert view.present.all()


def test_the_same_places_told_twice_count_once() -> None:
    """A robot that is killed while it tells tells all of it again."""
    bucket = Bucket()
    segments = [bucket.segment([0, 1]), bucket.segment([2, 3])]
    made = payload(episode(4, [("wrist", segments[:1]), ("wrist", segments)]))
    assert (made.facts.frame_count, made.facts.frame_objects) == (4, 2)


def test_places_that_lead_nowhere_become_a_dead_letter_and_the_episode_goes_on() -> None:
    robot, log = Robot(), Log()
    bad = FrameSegment(sha256="x", size_bytes=1, codec=FFV1, steps=(), uri="s3://sop/x")
    events = episode(2, [("wrist", [bad])], robot)
    [(letter, event)] = decoded([log.append(event) for event in events]).rejected
    assert letter.reason is Reason.BAD_FEATURES
    assert event is not None


def test_bytes_that_are_not_what_was_recorded_are_refused_by_name() -> None:
    bucket = Bucket()
    segment = bucket.segment([0])
    made = payload(episode(1, [("wrist", [segment])]))

    class Altered:
        def key(self, uri: str) -> str:
            return uri

        def get(self, _key: str) -> bytes:
            return b"altered"

    with pytest.raises(FramesUnusable, match=r"s3://sop/frames/0 hashes to .*, recorded was"):
        Footage(made.data, Segments(Altered())).read("wrist")  # type: ignore[arg-type]
    with pytest.raises(FramesUnusable, match="not an episode's payload"):
        Footage(b"PAR1", bucket)


def test_more_places_than_an_episode_takes_become_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket()
    events = episode(2, [("wrist", [bucket.segment([0])]), ("top", [bucket.segment([1])])])
    monkeypatch.setattr("consumers.episode.MAX_FRAMES_BYTES", len(codec.encode(events[3])))
    done = sealed(list(events))
    assert [event.body.camera for event in done.episode.footage if isinstance(event.body, FramesRecorded)] == [
        "wrist"
    ]
