"""What cameras saw, as it travels: steps of an episode ↔ frames of the segments that they were encoded in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from schemas.base import Frozen, Int32, Int64

H264, FFV1 = "h264", "ffv1"
"""Codecs: video for uint8[H, W, 3], in MP4; without loss for uint16[H, W], in Matroska."""
SUFFIX = {H264: "mp4", FFV1: "mkv"}
"""What the name of an object with such bytes ends with."""
INLINE_BYTES = 64 * 1024
"""Largest segment that may travel in its event."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class StepRange(Frozen):
    """Step indices from `first` to `last`, both included."""

    first: Int32
    last: Int32


class FrameSegment(Frozen):
    """Frames of one camera that were encoded together: frame number i is that of step number i among `steps`.

    The bytes are in the object `uri`, or in `data`.
    """

    sha256: str
    size_bytes: Int64
    codec: str
    steps: tuple[StepRange, ...]
    uri: str | None = None
    data: bytes | None = None

    @property
    def frame_count(self) -> int:
        """How many frames it holds."""
        return sum(part.last - part.first + 1 for part in self.steps)


class FramesRecorded(Frozen):
    """What one camera saw in an episode, or a part of it."""

    camera: str
    segments: tuple[FrameSegment, ...]


def ranges_of(steps: Iterable[int]) -> tuple[StepRange, ...]:
    """Ascending step indices as ranges.

    Raises:
        ValueError: they do not ascend.
    """
    found: list[tuple[int, int]] = []
    for step in steps:
        if found and step <= found[-1][1]:
            raise ValueError(f"step {step} comes after step {found[-1][1]}")
        if found and step == found[-1][1] + 1:
            found[-1] = (found[-1][0], step)
        else:
            found.append((step, step))
    return tuple(StepRange(first=first, last=last) for first, last in found)


def steps_of(ranges: Iterable[StepRange]) -> Iterator[int]:
    """Step indices of ranges, in their order."""
    for part in ranges:
        yield from range(part.first, part.last + 1)


def problem(body: FramesRecorded) -> str | None:
    """Why nobody could find a frame by it, if so."""
    for segment in body.segments:
        where = f"a segment of camera {body.camera!r}"
        if not _SHA256.fullmatch(segment.sha256):
            return f"{where} has sha256 {segment.sha256[:80]!r}"
        if (segment.uri is None) == (segment.data is None):
            return f"{where} is neither in one object nor in its event"
        if segment.data is not None and len(segment.data) > INLINE_BYTES:
            return f"{where} has {len(segment.data)} bytes in its event, more than {INLINE_BYTES}"
        last = -1
        for part in segment.steps:
            if part.first <= last or part.last < part.first:
                return f"{where} names steps that do not ascend"
            last = part.last
        if segment.frame_count >= 2**31:
            return f"{where} has {segment.frame_count} frames, more than can be numbered"
    return None
