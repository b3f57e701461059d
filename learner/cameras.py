"""The cameras that a policy sees, together: frames of each by the rows of the buffer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infra.footage import View
from learner.camera_frames import CameraFrames, decoding_threads
from learner.frames import Room
from learner.policies.base import PolicySpec
from learner.tracks import Track


class Cameras:
    """Those that a spec names; false where it names none."""

    def __init__(self, spec: PolicySpec, batch_size: int, room: Room) -> None:
        """Raises UnfitEpisode if one of them is no uint8[height, width, 3]."""
        shapes = spec.camera_shapes
        self._threads = decoding_threads() if shapes else None
        self._frames: dict[str, CameraFrames] = {}
        if self._threads is not None:
            for name, shape in shapes.items():
                self._frames[name] = CameraFrames(shape, batch_size, room, self._threads)

    def __bool__(self) -> bool:
        return bool(self._frames)

    @property
    def nbytes(self) -> int:
        """Of disk."""
        return sum(frames.nbytes for frames in self._frames.values())

    def add(self, begin: int, count: int, tracks: Mapping[str, Track]) -> None:
        """What they saw in an episode whose `count` rows begin at `begin`.

        Raises:
            DiskFull: if the room says so; nothing was added.
        """
        done: list[CameraFrames] = []
        try:
            for name, frames in self._frames.items():
                frames.add(begin, count, tracks.get(name))
                done.append(frames)
        except BaseException:
            for frames in done:
                frames.remove(begin, count)
            raise

    def remove(self, begin: int, count: int) -> None:
        """An episode's rows mean others from now on."""
        for frames in self._frames.values():
            frames.remove(begin, count)

    def expect(self, rows: npt.NDArray[np.int64]) -> None:
        """Begin to decode what will probably be taken next."""
        for frames in self._frames.values():
            frames.expect(rows)

    def take(self, rows: npt.NDArray[np.int64]) -> dict[str, View]:
        """What these rows show; written again once the next ones are taken."""
        return {name: frames.take(rows) for name, frames in self._frames.items()}

    def close(self) -> None:
        """Let go of files and threads."""
        for frames in self._frames.values():
            frames.close()
        if self._threads is not None:
            self._threads.shutdown()
