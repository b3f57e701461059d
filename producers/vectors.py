"""A robot's vectors, checked against the features of the episode and turned into what travels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from producers.frames.camera import COLOUR, DEPTH, Camera
from schemas.events import Feature

_FLOAT32 = np.dtype("<f4")

STATE = "state"
ACTION = "action"
MOST_CAMERAS = 64

# The last byte of a little-endian float32 that is NaN, infinite or above 1.7e38: its sign, and the exponent's high
# bits, all set. To look for these costs a control loop, whose code is in no cache, a tenth of what a sum in Python
# does, and a twentieth of numpy's `isfinite`.
_VAST, _VAST_NEGATIVE = 0x7F, 0xFF
_NDARRAY = np.ndarray  # to look it up in numpy's large namespace costs a control loop 10 µs


def require_float32(feature: Feature) -> None:
    """Refuse a vector of another dtype.

    Raises:
        ValueError: it has one.
    """
    if feature.dtype != "float32":
        raise ValueError(
            f"feature {feature.name!r} has dtype {feature.dtype!r}; vectors are recorded as float32: leave dtype "
            f"out, step() converts what it is given"
        )


class Layout:
    """The vectors of one episode: which there are, and how long each is; and its cameras."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Check the features; those that are not `state` and `action` are cameras.

        Raises:
            ValueError: `state` or `action` is missing, a name is given twice, a dtype is not float32, a shape is
                empty or has a dimension below 1, names do not match the number of elements, or what should be a
                camera is none.
        """
        self.features = tuple(features)
        self._shapes: dict[str, tuple[int, ...]] = {}
        cameras: list[Camera] = []
        for feature in self.features:
            if feature.name in self._shapes:
                raise ValueError(f"feature {feature.name!r} is given twice")
            if feature.name not in (STATE, ACTION):
                if feature.dtype not in (COLOUR, DEPTH):
                    raise ValueError(
                        f"unknown feature {feature.name!r} of {feature.dtype}: vectors are {STATE!r} and "
                        f"{ACTION!r}, cameras are {COLOUR} or {DEPTH}"
                    )
                cameras.append(Camera.of(feature))
                self._shapes[feature.name] = feature.shape
                continue
            require_float32(feature)
            if not feature.shape or min(feature.shape) < 1:
                raise ValueError(f"feature {feature.name!r} has the impossible shape {feature.shape}")
            if feature.names and len(feature.names) != feature.size:
                raise ValueError(
                    f"feature {feature.name!r} has {feature.size} elements and {len(feature.names)} names"
                )
            self._shapes[feature.name] = feature.shape
        for name in (STATE, ACTION):
            if name not in self._shapes:
                raise ValueError(f"feature {name!r} is missing")
        if len(cameras) > MOST_CAMERAS:
            raise ValueError(f"{len(cameras)} cameras; an episode takes {MOST_CAMERAS}")
        self.cameras = tuple(cameras)

    @property
    def step_bytes(self) -> int:
        """Most bytes of a step's vectors: state, action, and the action that was proposed."""
        vectors = [f for f in self.features if f.name in (STATE, ACTION)]
        return sum((2 if f.name == ACTION else 1) * 4 * f.size for f in vectors)

    @property
    def frame_bytes(self) -> int:
        """Bytes of disk that the frames of one step take, about."""
        return sum(camera.disk_bytes for camera in self.cameras)

    def pack(self, name: str, value: ArrayLike, argument: str | None = None) -> bytes:
        """Little-endian float32 bytes of a vector of feature `name`; `argument` names it in errors.

        Raises:
            ValueError: it has another shape, or holds NaN, infinity, or a number beyond float32.
        """
        argument = argument or name
        vector = value if type(value) is _NDARRAY and value.dtype is _FLOAT32 else _float32(value, argument)
        if vector.shape != self._shapes[name]:
            raise ValueError(f"{argument} has shape {vector.shape}; feature {name!r} says {self._shapes[name]}")
        packed = vector.tobytes()
        highest = packed[3::4]
        if (_VAST in highest or _VAST_NEGATIVE in highest) and not np.isfinite(vector).all():
            worst = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise ValueError(f"{argument} is not finite: element {worst} is {vector.flat[worst]}")
        return packed


def _float32(value: ArrayLike, argument: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=_FLOAT32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} is not a vector of numbers: {error}") from error
