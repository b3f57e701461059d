"""Whether an episode can begin as it is asked for: what is wrong is said before anything is recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from producers.outbox import MOST_BYTES
from producers.vectors import Layout
from schemas.events import Feature
from schemas.topics import ROBOT_STEPS

# Of a step's body beside its vectors: ids, numbers, time.
_STEP_OVERHEAD = 256


def require_sound(task: str, features: Sequence[Feature], fps: float, max_steps: int) -> tuple[Layout, int]:
    """The layout of an episode's vectors and cameras, and the most bytes that a step's body takes.

    Raises:
        ValueError: there is no task, the features, fps or max_steps make no sense, or a step of these features is
            larger than a record of Kafka's.
    """
    if not task:
        raise ValueError("an episode needs a task, by which episodes are grouped")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is steps per second and above 0, got {fps}")
    if not isinstance(max_steps, Integral) or max_steps < 1:
        raise ValueError(
            f"max_steps is for how many steps room is kept, a whole number above 0, got {max_steps!r}"
        )
    layout = Layout(features)
    step_bytes = layout.step_bytes + _STEP_OVERHEAD
    if step_bytes > MOST_BYTES[ROBOT_STEPS]:
        raise ValueError(
            f"a step of these features takes {step_bytes} bytes, and {ROBOT_STEPS} takes "
            f"{MOST_BYTES[ROBOT_STEPS]}: fewer elements in state and action; images are cameras"
        )
    return layout, step_bytes
