"""Readings that no sensor gives: one of 1e9 in an episode would stop every update that draws it, for ever.

Whether an episode holds one follows from the policy's spec and its payload. It is asked once, when the episode is
to be admitted; afterwards the journal says what was decided.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from learner.episodes import Frames
from learner.policies.base import ACTION, STATE, Floats, PolicySpec

FARTHEST = 1e4
"""From the mean, in standard deviations of the demonstrations.

An element that never moved in them has a deviation of 0.01 (`learner.line_spec`): it may still move by 100, in
whatever unit. What lies farther makes gradients that `Descent.follow` does not take.
"""


def implausible(spec: PolicySpec, frames: Frames) -> str:
    """What is wrong with an episode of at least the spec's widths; empty: nothing.

    Actions are measured by the action's deviations; where the architecture has none, it plans in the action's own
    unit, and they are measured by that.
    """
    return _farthest(STATE, frames, frames.states, spec.state_mean, spec.state_std) or _farthest(
        ACTION, frames, frames.actions, spec.action_mean, spec.action_std
    )


def _farthest(name: str, frames: Frames, rows: Floats, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    if not rows.size:
        return ""
    # In double: what lies at the end of float32's range would overflow.
    values = rows.astype(np.float64)
    away: npt.NDArray[np.float64] = np.abs(values - np.array(mean) if mean else values)
    if std:
        away /= np.array(std)
    row, element = (int(place) for place in np.unravel_index(int(away.argmax()), away.shape))
    if away[row, element] <= FARTHEST:
        return ""
    unit = "standard deviations from the demonstrations' mean" if std else "units from zero"
    return (
        f"{name}[{element}] is {rows[row, element]:g} at step {int(frames.index[row])}: "
        f"{away[row, element]:.3g} {unit}, where {FARTHEST:g} are believed"
    )
