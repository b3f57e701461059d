"""RECAP's distributional value function: how much longer, and whether at all (arXiv 2511.14759)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from learner.algorithms.base import Fitting, unheard
from learner.algorithms.descent import Descent
from learner.errors import InvalidArtifact
from learner.policies.artifact import Arrays
from learner.policies.base import Floats, PolicySpec

BINS = 201
"""Over [−1, 0], both ends included: 0.005 apart."""

_HIDDEN = (128, 128)
_BATCH = 256
_LEARNING_RATE = 1e-3


class ValueFunction:
    """An MLP over the normalised state and the task's one-hot, with a categorical distribution of returns.

    It sees what the policy sees of a state vector; cameras have no part in it.
    """

    def __init__(self, spec: PolicySpec, *, seed: int) -> None:
        """Draw the first weights from `seed`; torch's global random state is left alone."""
        self._seed = seed
        self._mean = np.asarray(spec.state_mean, np.float32)
        self._std = np.asarray(spec.state_std, np.float32)
        self._tasks = len(spec.tasks)
        generator = torch.Generator().manual_seed(seed)
        widths = [spec.state_size + self._tasks, *_HIDDEN, BINS]
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            weight = torch.randn(fan_out, fan_in, generator=generator) * (2.0 / fan_in) ** 0.5
            self._layers.append((weight.requires_grad_(), torch.zeros(fan_out, requires_grad=True)))
        self._bins = torch.linspace(-1.0, 0.0, BINS, dtype=torch.float64)

    def fit(
        self,
        states: Floats,
        tasks: npt.NDArray[np.integer[Any]],
        returns: Floats,
        *,
        steps: int,
        fitting: Fitting = unheard,
    ) -> float:
        """Pre-train on Monte Carlo returns by cross-entropy; the mean loss of the last tenth of the steps.

        Args:
            states: float32[n, d], n > 0; on disk as well, for only what is drawn is read.
            tasks: integers [n], places in the policy's tasks.
            returns: float32[n] in [−1, 0].
            steps: gradient steps; minibatches are drawn uniformly, always the same.
            fitting: told after each of them.
        """
        random = np.random.default_rng(self._seed)
        descent = Descent(self, seed=self._seed, ema_half_life=0.0)
        descent.begin_phase(_LEARNING_RATE, steps)
        losses = []
        for step in range(1, steps + 1):
            rows = random.integers(len(states), size=min(_BATCH, len(states)))
            targets = torch.from_numpy(bin_of(returns[rows]))
            loss = functional.cross_entropy(self._logits(self._inputs(states[rows], tasks[rows])), targets)
            descent.step(loss)
            losses.append(float(loss.detach()))
            fitting(step, steps)
        return float(np.mean(losses[-max(1, steps // 10) :]))

    def values(self, states: Floats, task: int) -> Floats:
        """V(o), the distribution's mean, float32[n] in [−1, 0], of float32[n, d] states of one task."""
        with torch.no_grad():
            logits = self._logits(self._inputs(states, np.full(len(states), task)))
            probabilities = torch.softmax(logits.double(), dim=1)
            return (probabilities @ self._bins).float().numpy()

    def parameters(self) -> list[torch.Tensor]:
        """Weights and biases, layer by layer."""
        return [tensor for layer in self._layers for tensor in layer]

    def names(self) -> list[str]:
        """Their names in a checkpoint."""
        return [f"value.{n}.{kind}" for n in range(len(self._layers)) for kind in ("weight", "bias")]

    def state(self) -> Arrays:
        """All weights."""
        return {
            name: np.array(t.detach().numpy()) for name, t in zip(self.names(), self.parameters(), strict=True)
        }

    def load_state(self, state: Arrays) -> None:
        """Take the weights of a checkpoint.

        Raises:
            InvalidArtifact: they are another value function's.
        """
        for name, tensor in zip(self.names(), self.parameters(), strict=True):
            if name not in state or state[name].shape != tuple(tensor.shape):
                raise InvalidArtifact(f"the checkpoint's value function lacks {name} of {tuple(tensor.shape)}")
            with torch.no_grad():
                tensor.copy_(torch.tensor(state[name]))

    def _inputs(self, states: Floats, tasks: npt.NDArray[np.integer[Any]]) -> torch.Tensor:
        one_hots = np.eye(self._tasks, dtype=np.float32)[tasks]
        return torch.from_numpy(np.concatenate(((states - self._mean) / self._std, one_hots), axis=1))

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = inputs
        for weight, bias in self._layers[:-1]:
            hidden = torch.relu(functional.linear(hidden, weight, bias))
        return functional.linear(hidden, *self._layers[-1])


def bin_of(returns: Floats) -> npt.NDArray[np.int64]:
    """Nearest bin of each return in [−1, 0], int64[n]."""
    return np.clip(np.rint((returns.astype(np.float64) + 1.0) * (BINS - 1)), 0, BINS - 1).astype(np.int64)
