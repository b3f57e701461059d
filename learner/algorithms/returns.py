"""Monte Carlo returns of episodes whose outcome is known (RECAP: arXiv 2511.14759, value function)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from learner.episodes import Episode, EpisodeRecord
from learner.policies.base import Floats
from schemas.events import EpisodeEnd


def outcome(record: EpisodeRecord) -> bool | None:
    """Whether an episode succeeded; None unless it was TERMINATED and somebody said so.

    What ran out of time or was broken off says nothing of how it would have ended.
    """
    return record.success if record.end is EpisodeEnd.TERMINATED else None


def last_reward(success: bool, failure_penalty: float) -> float:
    """Reward of the last step as a share of the task's longest episode: 0, or −C_fail."""
    return 0.0 if success else -failure_penalty


def monte_carlo_returns(
    index: npt.NDArray[np.int32], *, success: bool, horizon: int, failure_penalty: float
) -> Floats:
    """Return from each step on, float32[n] in [−1, 0].

    Reward is −1 for each step, at the last one 0 after a success and −C_fail after a failure. The sum is divided
    by `horizon` and clipped. Steps that were lost in between (gaps of `index`) took their time all the same.

    Args:
        index: step numbers, int32[n], rising.
        success: how the episode ended.
        horizon: the task's maximum episode length, steps.
        failure_penalty: C_fail / horizon.
    """
    remaining = (index[-1] - index) if len(index) else index
    returns = -remaining / horizon + last_reward(success, failure_penalty)
    return np.clip(returns, -1.0, 0.0).astype(np.float32)


def horizons(episodes: Iterable[Episode], tasks: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Maximum episode length of each task in steps, int64[tasks]; 0 where there is no episode."""
    found = np.zeros(len(tasks), np.int64)
    for episode in episodes:
        if len(episode.frames):
            task = tasks.index(episode.record.task)
            found[task] = max(found[task], int(episode.frames.index[-1]) + 1)
    return found
