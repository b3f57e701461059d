"""Frames of an open episode → segments on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.video import Image, SegmentWriter
from producers.frames.camera import Camera
from producers.frames.directory import EpisodeFolder


@dataclass
class _Open:
    writer: SegmentWriter
    number: int
    steps: list[int] = field(default_factory=list)


class EpisodeEncoder:
    """Encodes what the cameras of one episode see. A segment holds the frames of `segment_steps` steps in a row.

    Args:
        folder: where segments go.
        segment_steps: length of a segment, in control steps; number n begins with step n × length.
        min_free: bytes that the disk keeps for others.
        tell: takes what is wrong, in words.
    """

    def __init__(
        self, folder: EpisodeFolder, segment_steps: int, min_free: int, tell: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._length = segment_steps
        self._min_free = min_free
        self._tell = tell
        self.cameras, _, self._room = folder.head()
        self._room -= sum(segment.size for segment in folder.segments())
        self._open: dict[int, _Open] = {}

    def add(self, camera: int, step: int, image: Image) -> None:
        """Take a frame; the image is not needed afterwards. Steps of one camera ascend."""
        number = step // self._length
        for other in [key for key, found in self._open.items() if found.number < number]:
            self._close(other)
        found = self._open.get(camera)
        if found is None:
            one: Camera = self.cameras[camera]
            height, width = one.shape[:2]
            found = self._open[camera] = _Open(SegmentWriter(one.codec, height, width), number)
        found.writer.add(image)
        found.steps.append(step)

    def finish(self) -> None:
        """Close what is open."""
        for camera in list(self._open):
            self._close(camera)

    def _close(self, camera: int) -> None:
        found = self._open.pop(camera)
        data = found.writer.finish()
        try:
            if len(data) > self._room:
                raise OSError("the spool is full (SOP_ROBOT__MAX_SPOOL_BYTES)")
            if shutil.disk_usage(self._folder.path).free - len(data) < self._min_free:
                raise OSError("the disk is full, but for what it keeps free for others")
            self._folder.store(self.cameras[camera].name, found.writer.codec, found.steps, data)
            self._room -= len(data)
        except OSError as error:
            self._tell(f"{len(found.steps)} frames of camera {self.cameras[camera].name} are dropped: {error}")
