"""The robot's end of its cameras: a frame is copied into shared memory, and `step()` goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import ArrayLike, NDArray

from infra.settings import RobotSettings
from producers.errors import CamerasUnavailable
from producers.frames import messages
from producers.frames.camera import Camera
from producers.frames.directory import EpisodeFolder, Footage, FrameDirectory, Offered
from producers.frames.link import EncoderProcess, Life

# Places for frames: what is said about them must fit into a pipe of 64 KiB, so that no write ever waits.
_PLACES = 3_000
_FEWEST = 4
_START_PATIENCE = 30.0

_log = structlog.get_logger(__name__)

Checked = list[tuple[int, NDArray[Any]]]


class FrameRecorder:
    """Cameras of one robot, for its one thread; an encoder is started with the first episode that has some.

    Attributes:
        dropped: frames of this boot that are lost, as far as is known.
    """

    def __init__(self, directory: FrameDirectory, settings: RobotSettings, robot_id: str, bucket: str) -> None:
        self.dropped = 0
        self._directory = directory
        self._settings = settings
        self._robot_id = robot_id
        self._bucket = bucket
        self._process: EncoderProcess | None = None
        self._recording: _Recording | None = None

    @property
    def encoder(self) -> Life | None:
        """The encoder that runs now, if there is one."""
        return self._process.life if self._process else None

    def require(self, cameras: Sequence[Camera]) -> None:
        """See to it that an encoder runs that can take these cameras.

        Raises:
            ValueError: the frames are too large for the memory that is set aside.
            CamerasUnavailable: the encoder does not start.
        """
        _layout(cameras, self._settings.frame_buffer_bytes)
        if self._process is None:
            self._process = EncoderProcess(
                self._directory.path,
                self._robot_id,
                self._settings.frame_buffer_bytes,
                segment_steps=self._settings.frame_segment_steps,
                min_free=self._settings.min_free_bytes,
            )
        self._process.forget_errors()
        if not self._process.wait_ready(_START_PATIENCE):
            why = "; ".join(self._process.errors()) or f"it said nothing for {_START_PATIENCE:.0f} s"
            raise CamerasUnavailable(f"the encoder of frames does not start: {why}")

    def begin(self, episode_id: str, cameras: Sequence[Camera], room: int) -> None:
        """An episode begins, after `require`; its frames may take `room` bytes of disk.

        Raises:
            CamerasUnavailable: the disk refuses.
        """
        assert self._process is not None  # noqa: S101
        folder = self._directory.episode(episode_id)
        try:
            folder.begin(cameras, f"s3://{self._bucket}/frames/{episode_id}/", room)
            offered = Offered(folder.offered_file, len(cameras))
        except OSError as error:
            raise CamerasUnavailable(f"{folder.path} cannot be made: {error}") from error
        places = _layout(cameras, self._settings.frame_buffer_bytes)
        self._recording = _Recording(episode_id, cameras, folder, offered, self._process, places)

    def check(self, frames: Mapping[str, ArrayLike]) -> Checked:
        """Frames of one step, by camera; nothing is recorded yet.

        Raises:
            ValueError: a frame is not as its feature says, or its camera has none.
        """
        if self._recording is None:
            raise ValueError(f"no feature of the episode describes a camera, and frames of {sorted(frames)} came")
        return self._recording.check(frames)

    def offer(self, step: int, frames: Checked) -> None:
        """Hand frames over, in the control loop: waits for nothing; what does not fit is counted as dropped."""
        assert self._recording is not None  # noqa: S101
        self._recording.offer(step, frames)

    def finish(self) -> Footage:
        """What the episode's cameras recorded, once all of it is on disk; the same until the next `begin`."""
        return Footage() if self._recording is None else self._recording.finish(self._settings.frames_patience)

    def ended(self, footage: Footage) -> None:
        """The episode's end is recorded; said again, nothing happens."""
        if self._recording is not None:
            self.dropped, self._recording = self.dropped + footage.dropped, None

    def abandon(self) -> None:
        """The episode that was begun has no beginning in the spool."""
        self.finish()
        self._recording = None

    def lost(self) -> int:
        """Frames of this boot that are known to be lost, those of the open episode included."""
        recording = self._recording
        return self.dropped + (recording.refused if recording else 0)

    def errors(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        found = self._process.errors() if self._process else ()
        recording = self._recording
        if recording is not None and recording.refused:
            found += (f"{recording.refused} frames of this episode are dropped: the encoder does not keep up",)
        return found

    def close(self) -> None:
        """Have the encoder end."""
        if self._process is not None:
            self._process.stop()


class _Recording:
    """One open episode."""

    def __init__(  # noqa: PLR0917
        self,
        episode_id: str,
        cameras: Sequence[Camera],
        folder: EpisodeFolder,
        offered: Offered,
        process: EncoderProcess,
        places: list[list[int]],
    ) -> None:
        self.refused = 0
        self._episode_id = episode_id
        self._cameras = cameras
        self._numbers = {camera.name: number for number, camera in enumerate(cameras)}
        self._folder = folder
        self._offered = offered
        self._process = process
        self._all_places = places
        self._free: list[list[int]] = []
        self._life: Life | None = None
        self._views: dict[int, NDArray[Any]] = {}
        self._footage: Footage | None = None
        self._live()

    def check(self, frames: Mapping[str, ArrayLike]) -> Checked:
        found: Checked = []
        for name, frame in frames.items():
            number = self._numbers.get(name)
            if number is None:
                known = ", ".join(sorted(self._numbers))
                raise ValueError(f"the episode has no camera {name!r}; its features name {known}")
            found.append((number, self._cameras[number].check(frame)))
        return found

    def offer(self, step: int, frames: Checked) -> None:
        for camera, _ in frames:
            self._offered.add(camera)
        life = self._live()
        if life is None:
            self.refused += len(frames)
            return
        for camera, offset in life.freed():
            self._free[camera].append(offset)
        said, taken = [], []
        for camera, image in frames:
            if not self._free[camera]:
                self.refused += 1
                continue
            # The place that became free last is still in the processor's caches.
            offset = self._free[camera].pop()
            np.copyto(self._view(camera, offset), image)
            said.append(messages.frame(camera, step, offset))
            taken.append((camera, offset))
        if said and not life.send(b"".join(said)):
            self.refused += len(said)
            for camera, offset in taken:
                self._free[camera].append(offset)

    def finish(self, patience: float) -> Footage:
        if self._footage is None:
            life = self._process.life
            if life is not None and life is self._life:
                life.send(messages.end())
                until = time.monotonic() + patience
                if not self._process.wait_done(self._episode_id, life, max(0.0, until - time.monotonic())):
                    _log.error("encoder_hangs", episode_id=self._episode_id, waited=patience)
                    self._process.kill(life)
            self._views.clear()
            self._offered.close()
            self._footage = self._folder.footage()
        return self._footage

    def _live(self) -> Life | None:
        """The encoder that runs now, told of the episode."""
        life = self._process.life
        if life is not self._life:
            self._life = None
            if life is not None:
                life.freed()  # of an episode before
                if life.send(messages.begin(self._episode_id)):
                    self._free = [list(places) for places in self._all_places]
                    self._life = life
        return self._life

    def _view(self, camera: int, offset: int) -> NDArray[Any]:
        view = self._views.get(offset)
        if view is None:
            one = self._cameras[camera]
            view = np.ndarray(one.shape, one.dtype, self._process.memory, offset)
            self._views[offset] = view
        return view


def _layout(cameras: Sequence[Camera], size: int) -> list[list[int]]:
    """Offsets of places in the shared memory for each camera, equally many, one after the other.

    Raises:
        ValueError: there is room for too few.
    """
    together = sum(camera.nbytes for camera in cameras)
    count = min(_PLACES // max(1, len(cameras)), size // max(1, together))
    if count < _FEWEST:
        raise ValueError(
            f"frames of {len(cameras)} cameras have {together} bytes a step, and only {count} such steps fit into "
            f"the {size} bytes set aside; raise SOP_ROBOT__FRAME_BUFFER_BYTES"
        )
    found, at = [], 0
    for camera in cameras:
        found.append([at + place * camera.nbytes for place in reversed(range(count))])
        at += count * camera.nbytes
    return found
