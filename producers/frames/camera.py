"""One camera of an episode: what its frames look like, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.events import Feature
from schemas.frames import FFV1, H264

COLOUR, DEPTH = "uint8", "uint16"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIDES = range(16, 8193)
# What a frame takes on disk at most, as a share of its bytes, when room is kept for an episode: camera-like video
# takes 2 % and with much noise 5 %, noisy depth 40 %.
_DISK_SHARE = {COLOUR: 0.05, DEPTH: 0.6}


@dataclass(frozen=True, slots=True)
class Camera:
    """Images uint8[height, width, 3] (kept as video), or uint16[height, width] (kept without loss)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, feature: Feature) -> Camera:
        """The camera that a feature describes.

        Raises:
            ValueError: the feature makes no sense for a camera.
        """
        name, shape = feature.name, feature.shape
        if not _NAME.fullmatch(name):
            raise ValueError(f"camera {name!r}: a name is letters, digits, '_' and '-', at most 64")
        wanted = 3 if feature.dtype == COLOUR else 2
        if len(shape) != wanted or (feature.dtype == COLOUR and shape[2] != 3):
            raise ValueError(
                f"camera {name!r} has {feature.dtype} images of shape {shape}; colour is uint8 (height, width, "
                f"3), depth is uint16 (height, width)"
            )
        if shape[0] not in _SIDES or shape[1] not in _SIDES:
            raise ValueError(f"camera {name!r} has shape {shape}; sides are 16 to 8192 pixels")
        if feature.dtype == COLOUR and (shape[0] % 2 or shape[1] % 2):
            raise ValueError(
                f"camera {name!r} has shape {shape}; H.264 takes even heights and widths only: crop it"
            )
        if feature.names:
            raise ValueError(f"camera {name!r} has names of elements; pixels have none")
        return cls(name, feature.dtype, shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one frame in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def disk_bytes(self) -> int:
        """Bytes of one frame on disk that room is kept for."""
        return int(self.nbytes * _DISK_SHARE[self.dtype])

    @property
    def codec(self) -> str:
        """How its frames are kept."""
        return H264 if self.dtype == COLOUR else FFV1

    def check(self, frame: ArrayLike) -> NDArray[Any]:
        """The frame as an array.

        Raises:
            ValueError: it has another dtype or shape than the episode's feature says.
        """
        if not isinstance(frame, np.ndarray):
            raise ValueError(f"the frame of camera {self.name!r} is a {type(frame).__name__}, not a numpy array")
        if frame.dtype != self.dtype or frame.shape != self.shape:
            raise ValueError(
                f"the frame of camera {self.name!r} is {frame.dtype}{list(frame.shape)}; the episode's feature "
                f"says {self.dtype}{list(self.shape)}. A camera keeps its size for a whole episode"
            )
        return frame
