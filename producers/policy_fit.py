"""Whether a policy is for this robot: its artifact's metadata against the robot's features and control rate.

The metadata are JSON in the header of a safetensors file, under `sop`: `features`, `chunk`, `fps`, `state_mean`
and `state_std`. Nothing is loaded for this, and no torch is needed.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producers.errors import PolicyRefused
from producers.vectors import ACTION, STATE, require_float32
from schemas.events import Feature

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # as safetensors itself bounds it


@dataclass(frozen=True, slots=True)
class RobotKind:
    """What a policy must be made for.

    features: what the robot measures and takes; a policy's own features must all be among these, and equal.
    fps: control rate, steps per second. chunks: chunk lengths that the robot's control can play; none: any.

    Raises:
        ValueError: `state` or `action` is not float32, so that no policy would ever fit.
    """

    features: tuple[Feature, ...]
    fps: float
    chunks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for feature in self.features:
            if feature.name in (STATE, ACTION):
                require_float32(feature)


class _Metadata(BaseModel):
    """The part of a policy's metadata that concerns a robot; the learner may say more."""

    model_config = ConfigDict(extra="ignore")

    features: tuple[Feature, ...] = Field(min_length=1)
    chunk: int = Field(ge=1)
    fps: float
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]


def require_fit(path: Path, kind: RobotKind) -> None:
    """Refuse an artifact that was made for another robot.

    Raises:
        PolicyRefused: the text says what differs.
        OSError: the file cannot be read.
    """
    policy = _metadata(path)
    ours = {feature.name: feature for feature in kind.features}
    for feature in policy.features:
        if ours.get(feature.name) != feature:
            raise PolicyRefused(
                f"feature {feature.name!r} is {_told(feature)}, ours {_told(ours.get(feature.name))}"
            )
    if policy.fps != kind.fps:
        raise PolicyRefused(f"it controls at {policy.fps:g} Hz, the robot at {kind.fps:g} Hz")
    if kind.chunks and policy.chunk not in kind.chunks:
        raise PolicyRefused(f"it plans {policy.chunk} actions at once, the robot plays {kind.chunks}")
    size = next((feature.size for feature in policy.features if feature.name == STATE), 0)
    if not len(policy.state_mean) == len(policy.state_std) == size:
        raise PolicyRefused(f"its normalisation is for {len(policy.state_mean)} elements, the state has {size}")
    finite = all(math.isfinite(value) for value in (*policy.state_mean, *policy.state_std))
    if not finite or any(value <= 0 for value in policy.state_std):
        raise PolicyRefused("its normalisation is not finite and positive")


def _metadata(path: Path) -> _Metadata:
    try:
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            if length > _LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header: Any = json.loads(file.read(length))
        return _Metadata.model_validate_json(header["__metadata__"]["sop"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PolicyRefused(f"its metadata do not say for which robot it is: {where}: {first['msg']}") from error
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise PolicyRefused(f"it is no safetensors file of a policy: {error!r}") from error


def _told(feature: Feature | None) -> str:
    if feature is None:
        return "missing"
    names = f" {','.join(feature.names)}" if feature.names else ""
    return f"{feature.dtype}{list(feature.shape)}{names}"
