"""SOP's adaptive sampler: the source that is learned worse is drawn more (arXiv 2601.03044, adaptive sampling)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from learner.sampler import OFFLINE, ONLINE, SOURCES, GroupLosses

MIN_SAMPLES = 100
"""Fewer say little of a source's loss: their mean would swing the share at each step."""


class AdaptiveMixing:
    """Online share by task from the losses of the last `window` learner steps. Implements `Sampler`.

    Inside a task, ω_on = exp(α·l̄_on) / (exp(α·l̄_on) + exp(l̄_off)), clipped to [floor, ceiling]; l̄ is the mean
    loss of the samples of one source in the window. Tasks see nothing of one another.

    The paper leaves open (ours): α, its value, 1.5. Cold start: until both sources of a task have `MIN_SAMPLES`
    samples in the window, its share is `start`, clipped too. Once the window is full, half of what the clip leaves
    a source at least is enough: where batches or windows are small for so many tasks, a share at the clip would
    else make its own source unknown again. A source that has no data at all is the buffer's business: the other
    one gives the whole batch, whatever the clip says.

    With `normalise` both means are divided by their average first: losses of flow matching, 0.05 to 0.10, hardly
    move the paper's form from 1/2.
    """

    def __init__(
        self,
        tasks: int,
        *,
        alpha: float,
        window: int,
        floor: float,
        ceiling: float,
        start: float,
        normalise: bool = False,
    ) -> None:
        """`window` in learner steps; shares in [0, 1], floor ≤ ceiling."""
        self._alpha = alpha
        self._floor, self._ceiling = floor, ceiling
        self._start = start
        self._normalise = normalise
        self._draws = np.zeros((window, tasks, SOURCES), np.int64)
        self._sums = np.zeros((window, tasks, SOURCES))
        self._next = 0

    def online_shares(self) -> npt.NDArray[np.float64]:
        """ω_on of each task, float64[tasks], inside the clip."""
        draws, sums = self._draws.sum(axis=0), self._sums.sum(axis=0)
        means = sums / np.maximum(draws, 1)
        shares = online_share(means[:, ONLINE], means[:, OFFLINE], self._alpha, normalise=self._normalise)
        known = (draws >= self._enough(draws)).all(axis=1)
        clipped: npt.NDArray[np.float64] = np.clip(
            np.where(known, shares, self._start), self._floor, self._ceiling
        )
        return clipped

    def _enough(self, draws: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Samples that a source must have in the window; `draws` and it: [tasks, 2]."""
        if not self._draws.any(axis=(1, 2)).all():
            return np.full(draws.shape, float(MIN_SAMPLES))
        least = np.empty(SOURCES)
        least[ONLINE], least[OFFLINE] = self._floor, 1.0 - self._ceiling
        enough: npt.NDArray[np.float64] = np.clip(draws.sum(axis=1)[:, None] * least / 2.0, 1.0, MIN_SAMPLES)
        return enough

    def observe(self, losses: GroupLosses) -> None:
        """Take the losses of one learner step in; those of `window` steps ago leave."""
        self._draws[self._next] = losses.draws
        self._sums[self._next] = losses.sums
        self._next = (self._next + 1) % len(self._draws)

    def state(self) -> dict[str, Any]:
        """The windows, as JSON; floats survive it bit for bit."""
        return {"draws": self._draws.tolist(), "sums": self._sums.tolist(), "next": self._next}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; windows of another length or of fixed mixing are not taken up: a cold start."""
        draws = np.asarray(state.get("draws", ()), np.int64)
        if draws.shape != self._draws.shape:
            return
        self._draws[:] = draws
        self._sums[:] = np.asarray(state["sums"], np.float64)
        self._next = int(state["next"])


def online_share(
    online: npt.NDArray[np.float64], offline: npt.NDArray[np.float64], alpha: float, *, normalise: bool = False
) -> npt.NDArray[np.float64]:
    """The paper's ω_on for mean losses l̄_on and l̄_off, unclipped: σ(α·l̄_on − l̄_off), which cannot overflow.

    With `normalise` both are divided by their average; where that is 0 they are left alone.
    """
    if normalise:
        average = (online + offline) / 2.0
        scale = np.where(average > 0.0, average, 1.0)
        online, offline = online / scale, offline / scale
    logits = alpha * online - offline
    # σ(x) = (1 + tanh(x / 2)) / 2
    shares: npt.NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return shares
