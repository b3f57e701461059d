"""Advantages of the policy's steps, and the threshold that they are judged by (RECAP, arXiv 2511.14759)."""

from __future__ import annotations

import numpy as np

from learner.episodes import Frames
from learner.policies.base import Floats


def n_step_advantages(frames: Frames, values: Floats, *, horizon: int, steps: int, ending: float | None) -> Floats:
    """A_t = Σ_{k<N} r_{t+k} + V(o_{t+N}) − V(o_t) of each frame, float32[n].

    The look-ahead ends where control changes hands, at the first step of the other's: what a human mended is not
    credited to the policy. It ends with the episode, too: beyond a known end V is 0; where the outcome is unknown,
    the last observation's value stands for it. Gaps of `index` count as the steps that they are.

    Args:
        frames: of one episode.
        values: V(o_t) of each frame, float32[n].
        horizon: the task's maximum episode length, steps; rewards are divided by it.
        steps: N.
        ending: reward of the last step, as a share of the horizon; None when the outcome is unknown.
    """
    count = len(frames)
    if count == 0:
        return np.zeros(0, np.float32)
    index = frames.index.astype(np.int64)
    places = np.arange(count)
    changes = np.flatnonzero(frames.human[1:] != frames.human[:-1]) + 1  # first frame under the other's control
    handed_over = np.append(changes, count)[np.searchsorted(changes, places, side="right")]
    ahead = np.minimum(np.searchsorted(index, index + steps), handed_over)
    last = np.minimum(ahead, count - 1)
    beyond = values[last] if ending is None else np.where(ahead < count, values[last], ending)
    advantages: Floats = (-(index[last] - index) / horizon + beyond - values).astype(np.float32)
    return advantages


def rank_of(positive_share: float, count: int) -> int:
    """Place among `count` sorted advantages of the ε above which about `positive_share` of them lie, from 0."""
    return int((count - 1) * (1.0 - positive_share))  # that of one of them, nothing in between
