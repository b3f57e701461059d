"""Frames on the robot's disk: a folder for each episode until Kafka has the episode's end.

<episode_id>/manifest.jsonl    what the episode's cameras are; then one line for each whole segment
<episode_id>/<sha256>.mp4      a segment; .mkv without loss
<episode_id>/offered           how many frames each camera handed over: shared memory that survives a process
lock                           held by the encoder

A segment counts once its line is whole, and the line is written after the segment is on the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.files import write_atomically
from producers.frames.camera import Camera
from schemas.events import FrameSegment, FramesRecorded, StepRange
from schemas.frames import INLINE_BYTES, SUFFIX, ranges_of, steps_of

INLINE_EPISODE_BYTES = 4 * INLINE_BYTES
"""Bytes of stills that travel inside an episode's events; beyond, stills are objects like all others."""
_SEGMENTS_PER_EVENT = 500
# A change this long ago has a time of its own: no later one has the same.
_SETTLED_NS = 10**9
_EVENT_BYTES = 512 * 1024
_COUNT = struct.Struct("<Q")
_EPISODE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Segment:
    """A whole segment on disk; `steps` are those that it holds a frame of."""

    camera: str
    codec: str
    sha256: str
    size: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Footage:
    """What an episode's cameras recorded: bodies of events; frames in them, and frames that are lost."""

    events: tuple[FramesRecorded, ...] = ()
    frame_count: int = 0
    dropped: int = 0


class Offered:
    """Counts of frames that were handed over, by camera, in a file that is memory: 8 bytes each."""

    def __init__(self, path: Path, cameras: int) -> None:
        with path.open("w+b") as file:
            file.truncate(max(1, cameras) * _COUNT.size)
            self._memory = mmap.mmap(file.fileno(), 0)
        self._counts = [0] * cameras

    def add(self, camera: int) -> None:
        """One more."""
        self._counts[camera] += 1
        _COUNT.pack_into(self._memory, camera * _COUNT.size, self._counts[camera])

    @property
    def total(self) -> int:
        """Of all cameras."""
        return sum(self._counts)

    def close(self) -> None:
        """Let go; the file stays."""
        self._memory.close()


@dataclass(frozen=True)
class EpisodeFolder:
    """One episode's folder."""

    path: Path

    @property
    def offered_file(self) -> Path:
        """Counts of frames that were handed over."""
        return self.path / "offered"

    def begin(self, cameras: Sequence[Camera], uri: str, room: int) -> None:
        """Make the folder.

        Args:
            cameras: of the episode, in the order in which messages number them.
            uri: what addresses of its objects begin with.
            room: bytes that its segments may take.

        Raises:
            OSError: the disk refuses.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        head = {"uri": uri, "room": room, "cameras": [[c.name, c.dtype, list(c.shape)] for c in cameras]}
        (self.path / "manifest.jsonl").write_text(json.dumps(head) + "\n")

    def head(self) -> tuple[list[Camera], str, int]:
        """What `begin` was told.

        Raises:
            OSError, ValueError, KeyError: it cannot be read.
        """
        with (self.path / "manifest.jsonl").open() as file:
            fields = json.loads(file.readline())
        cameras = [Camera(name, dtype, tuple(shape)) for name, dtype, shape in fields["cameras"]]
        return cameras, fields["uri"], fields["room"]

    def file(self, segment: Segment | FrameSegment) -> Path:
        """Where a segment's bytes lie."""
        return self.path / f"{segment.sha256}.{SUFFIX.get(segment.codec, 'bin')}"

    def store(self, camera: str, codec: str, steps: Sequence[int], data: bytes) -> None:
        """Put a segment on the disk, and then its line.

        Raises:
            OSError: the disk refuses; the segment does not count.
        """
        segment = Segment(camera, codec, hashlib.sha256(data).hexdigest(), len(data), tuple(steps))
        write_atomically(self.file(segment), data)
        ranges = [[part.first, part.last] for part in ranges_of(segment.steps)]
        line = {"camera": camera, "codec": codec, "sha256": segment.sha256, "size": segment.size, "steps": ranges}
        with (self.path / "manifest.jsonl").open("a") as file:
            file.write("\n" + json.dumps(line))  # a line that a crash cut off before ends here
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())

    def segments(self) -> list[Segment]:
        """Whole segments, in the order in which they were finished."""
        found = []
        for line in (self.path / "manifest.jsonl").read_text().splitlines()[1:]:
            try:
                fields: dict[str, Any] = json.loads(line)
                ranges = [StepRange(first=first, last=last) for first, last in fields.pop("steps")]
                found.append(Segment(**fields, steps=tuple(steps_of(ranges))))
            except (ValueError, TypeError, KeyError):
                continue  # cut off by a crash: its frames count as dropped
        return found

    def offered(self, cameras: int) -> int:
        """Frames that were handed over, as far as is known."""
        if not self.offered_file.exists():
            return 0  # the power went before its name was on the disk
        data = self.offered_file.read_bytes()[: cameras * _COUNT.size]
        return sum(count for (count,) in _COUNT.iter_unpack(data[: len(data) // _COUNT.size * _COUNT.size]))

    def footage(self) -> Footage:
        """What was recorded, and how much of it is lost; nothing of an episode without a folder."""
        try:
            cameras, uri, _ = self.head()
            segments, offered = self.segments(), self.offered(len(cameras))
        except FileNotFoundError:
            return Footage()
        except (ValueError, KeyError, TypeError):
            return Footage()  # the crash cut the manifest's first line off: no frame was taken yet
        inline = 0
        by_camera: dict[str, list[FrameSegment]] = {camera.name: [] for camera in cameras}
        for segment in sorted(segments, key=lambda segment: segment.steps):
            data = self._still(segment, INLINE_EPISODE_BYTES - inline)
            inline += len(data or b"")
            by_camera[segment.camera].append(
                FrameSegment(
                    sha256=segment.sha256,
                    size_bytes=segment.size,
                    codec=segment.codec,
                    steps=ranges_of(segment.steps),
                    uri=None if data is not None else uri + self.file(segment).name,
                    data=data,
                )
            )
        events = tuple(
            FramesRecorded(camera=name, segments=tuple(part))
            for name, found in by_camera.items()
            for part in _parts(found)
        )
        whole = sum(len(segment.steps) for segment in segments)
        return Footage(events, whole, max(0, offered - whole))

    def used_bytes(self) -> int:
        """Bytes of its files."""
        used = 0
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    used += entry.stat().st_size
        except FileNotFoundError:
            pass  # sent, and removed meanwhile
        return used

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _still(self, segment: Segment, room: int) -> bytes | None:
        """The bytes of a segment that is one small image and may travel in its event."""
        if len(segment.steps) != 1 or segment.size > min(INLINE_BYTES, room):
            return None
        try:
            return self.file(segment).read_bytes()
        except OSError:
            return None


@dataclass(frozen=True)
class FrameDirectory:
    """The folders of all episodes below `path`, which need not exist."""

    path: Path
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def episode(self, episode_id: str) -> EpisodeFolder:
        """Folder of an episode."""
        return EpisodeFolder(self.path / episode_id)

    def episodes(self) -> list[str]:
        """Episodes that have one, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(entry.name for entry in self.path.iterdir() if _EPISODE.fullmatch(entry.name))

    def wait_unused(self, patience: float) -> None:
        """Wait until the encoder of a robot that was killed has brought everything to the disk.

        Raises:
            OSError: it still works after `patience` seconds.
        """
        lock = self.path / "lock"
        if not lock.exists():
            return
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            until = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise BlockingIOError(f"another process still encodes into {self.path}") from None
                    time.sleep(0.01)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove all folders."""
        for name in self.episodes():
            self.episode(name).remove()

    def used_bytes(self) -> int:
        """Bytes of all frames. Cheap: what a folder holds is remembered until it gets or loses a file."""
        names = self.episodes()
        for gone in self._sizes.keys() - names:
            self._sizes.pop(gone, None)
        used = 0
        for name in names:
            folder = self.episode(name)
            try:
                changed = folder.path.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # sent, and removed meanwhile
            known = self._sizes.get(name)
            if known is None or known[0] != changed:
                known = (changed, folder.used_bytes())
                if time.time_ns() - changed > _SETTLED_NS:
                    self._sizes[name] = known
            used += known[1]
        return used


def _parts(segments: Sequence[FrameSegment]) -> Iterator[list[FrameSegment]]:
    """Those that travel in one event: half of what a record may take, and one segment never is as much."""
    part: list[FrameSegment] = []
    size = 0
    for segment in segments:
        # sha256, codec and lengths; numbers of steps take some bytes each.
        more = 100 + len(segment.uri or "") + len(segment.data or b"") + 20 * len(segment.steps)
        if part and (size + more > _EVENT_BYTES or len(part) == _SEGMENTS_PER_EVENT):
            yield part
            part, size = [], 0
        part.append(segment)
        size += more
    if part:
        yield part
