"""Cameras in a payload: for each step and camera, which frame of which segment; null where there is none.

Column `frame_<camera>`: uri and sha256 of the segment's object (uri null for a still that travelled in its event,
whose bytes are then in `data`), codec, and index of the frame in the segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import EpisodeBoundary, Feature, FrameSegment, FramesRecorded, StepRange

PREFIX = "frame_"
_IMAGES = ("uint8", "uint16")
_FIELDS = (
    pa.field("uri", pa.string()),
    pa.field("sha256", pa.string()),
    pa.field("codec", pa.string()),
    pa.field("index", pa.int32()),
    pa.field("data", pa.binary()),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the frames of one camera are, by row, int32[n]: the segment (−1: none), and the index in it."""

    segments: tuple[FrameSegment, ...]
    segment: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]


def cameras_of(features: Sequence[Feature]) -> list[str]:
    """Names of the features that are cameras, each once."""
    return list(dict.fromkeys(feature.name for feature in features if feature.dtype in _IMAGES))


def placed(camera: str, events: Sequence[EpisodeBoundary], steps: npt.NDArray[np.int32]) -> Placed:
    """Frames of a camera for steps with these indices, in any order; of two frames of one step the first counts.

    Args:
        camera: its name.
        events: FramesRecorded of the episode; those of other cameras are passed over.
        steps: int32[n], step indices of the payload's rows.
    """
    found: dict[str, FrameSegment] = {}
    for event in events:
        if isinstance(event.body, FramesRecorded) and event.body.camera == camera:
            for segment in event.body.segments:
                found.setdefault(segment.sha256, segment)
    segments = tuple(found.values())
    runs = [
        (part.first, part.last, number, before)
        for number, segment in enumerate(segments)
        for part, before in _with_counts(segment)
    ]
    segment_of = np.full(len(steps), -1, np.int32)
    index_of = np.zeros(len(steps), np.int32)
    order = np.argsort(steps, kind="stable")
    ascending = steps[order]
    for first, last, number, before in reversed(runs):  # so that the first has the last word
        low, high = np.searchsorted(ascending, (first, last + 1))
        rows = order[low:high]
        segment_of[rows] = number
        index_of[rows] = steps[rows] - first + before
    return Placed(segments, segment_of, index_of)


def columns(
    features: Sequence[Feature], events: Sequence[EpisodeBoundary], steps: npt.NDArray[np.int32]
) -> list[tuple[pa.Field, pa.Array]]:
    """A column for each camera; none for an episode without cameras."""
    return [(_field(name), _column(placed(name, events, steps))) for name in cameras_of(features)]


def counts(
    features: Sequence[Feature], events: Sequence[EpisodeBoundary], steps: npt.NDArray[np.int32]
) -> tuple[int, int]:
    """Frames that rows refer to, and objects that any event refers to."""
    frames = sum(int((placed(name, events, steps).segment >= 0).sum()) for name in cameras_of(features))
    return frames, len(uris(events))


def uris(events: Sequence[EpisodeBoundary]) -> dict[str, FrameSegment]:
    """Objects that an episode refers to, by address."""
    return {
        segment.uri: segment
        for event in events
        if isinstance(event.body, FramesRecorded)
        for segment in event.body.segments
        if segment.uri is not None
    }


def _with_counts(segment: FrameSegment) -> list[tuple[StepRange, int]]:
    found: list[tuple[StepRange, int]] = []
    before = 0
    for part in segment.steps:
        found.append((part, before))
        before += part.last - part.first + 1
    return found


def _field(camera: str) -> pa.Field:
    return pa.field(PREFIX + camera, pa.struct(_FIELDS))


def _column(found: Placed) -> pa.Array:
    absent = found.segment < 0
    if absent.all():
        return pa.nulls(len(absent), pa.struct(_FIELDS))
    at = pa.array(np.where(absent, 0, found.segment), pa.int32())
    segments = found.segments
    values = (
        pa.array([segment.uri for segment in segments], pa.string()).take(at),
        pa.array([segment.sha256 for segment in segments], pa.string()).take(at),
        pa.array([segment.codec for segment in segments], pa.string()).take(at),
        pa.array(found.index, pa.int32()),
        pa.array([segment.data for segment in segments], pa.binary()).take(at),
    )
    return pa.StructArray.from_arrays(values, fields=_FIELDS, mask=pa.array(absent))
