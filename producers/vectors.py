"""A robot's vectors, checked against the features of the episode and turned into what travels."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from producers.frames.camera import COLOUR, DEPTH, Camera
from schemas.events import Feature

_FLOAT32 = np.dtype("<f4")

STATE = "state"
ACTION = "action"
MOST_CAMERAS = 64

# Up to here a sum in Python finds what is not finite sooner than numpy, whose code the control loop finds in no
# cache (27 µs against 46, for 64 and 7 elements at 50 Hz).
_FEW = 256
# Named here, because to look them up in numpy's large namespace costs a control loop 10 µs.
_NDARRAY, _is_finite = np.ndarray, math.isfinite


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
        self._short: set[str] = set()
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
            if feature.dtype != "float32":
                raise ValueError(f"feature {feature.name!r} has dtype {feature.dtype!r}; vectors are float32")
            if not feature.shape or min(feature.shape) < 1:
                raise ValueError(f"feature {feature.name!r} has the impossible shape {feature.shape}")
            if feature.names and len(feature.names) != feature.size:
                raise ValueError(
                    f"feature {feature.name!r} has {feature.size} elements and {len(feature.names)} names"
                )
            self._shapes[feature.name] = feature.shape
            if feature.size <= _FEW and sys.byteorder == "little":
                self._short.add(feature.name)
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
        # Numbers of 32 bits are summed in 64: only one that is not finite makes the sum so.
        finite = (
            _is_finite(sum(memoryview(packed).cast("f"))) if name in self._short else np.isfinite(vector).all()
        )
        if not finite:
            worst = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise ValueError(f"{argument} is not finite: element {worst} is {vector.flat[worst]}")
        return packed


def _float32(value: ArrayLike, argument: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=_FLOAT32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} is not a vector of numbers: {error}") from error
