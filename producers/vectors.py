"""A robot's vectors, checked against the features of the episode and turned into what travels."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.events import Feature

_FLOAT32 = np.dtype("<f4")

STATE = "state"
ACTION = "action"

# Up to here a sum in Python finds what is not finite sooner than numpy, whose code the control loop finds in no
# cache (27 µs against 46, for 64 and 7 elements at 50 Hz).
_FEW = 256
# Named here, because to look them up in numpy's large namespace costs a control loop 10 µs.
_NDARRAY, _is_finite = np.ndarray, math.isfinite


class Layout:
    """The vectors of one episode: which there are, and how long each is."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Check the features.

        Raises:
            ValueError: `state` or `action` is missing, a name is given twice or unknown, a dtype is not float32,
                a shape is empty or has a dimension below 1, or names do not match the number of elements.
        """
        self.features = tuple(features)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._short: set[str] = set()
        for feature in self.features:
            if feature.name in self._shapes:
                raise ValueError(f"feature {feature.name!r} is given twice")
            if feature.name not in (STATE, ACTION):
                raise ValueError(
                    f"unknown feature {feature.name!r}: this version records {STATE!r} and {ACTION!r}, no cameras"
                )
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

    @property
    def step_bytes(self) -> int:
        """Most bytes of a step's vectors: state, action, and the action that was proposed."""
        return sum((2 if f.name == ACTION else 1) * 4 * f.size for f in self.features)

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
