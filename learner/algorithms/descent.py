"""Gradient descent with averaged weights: what every algorithm here shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import structlog
import torch

from learner.errors import InvalidArtifact
from learner.policies.artifact import Arrays

_log = structlog.get_logger(__name__)

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_ABSURD_NORM = 1e6
"""Of a gradient. Losses are means of squares in units of a standard deviation: norms are about 1."""


class Trainable(Protocol):
    """Whatever has parameters."""

    def parameters(self) -> list[torch.Tensor]:
        """Leaves to change, always in the same order."""
        ...

    def names(self) -> list[str]:
        """Their names, in the same order."""
        ...


class Descent:
    """Adam on a policy's parameters, and the exponential moving average of them that is published.

    Adam (arXiv 1412.6980, algorithm 1) is written out: torch.optim's first use loads the compiler, 3.7 s of CPU at
    every start. All on one thread: on shared cores two take ten times as long, and one gives the same bits always.
    """

    def __init__(self, policy: Trainable, *, seed: int, ema_half_life: float) -> None:
        """`seed` of `random`, the only source of chance; `ema_half_life` in updates, 0: the weights themselves."""
        self._seed, self._taken = seed, 0
        self.skipped = 0
        """Updates since the start of this process whose gradient was no number, or absurd."""
        self.gradient_norm = 0.0
        """That of the last update, whether it was followed or not."""
        torch.set_num_threads(1)
        self.random = torch.Generator().manual_seed(seed)
        self._names = policy.names()
        self._parameters = policy.parameters()
        self._averages = [p.detach().clone() for p in self._parameters]
        self._keep = 0.5 ** (1.0 / ema_half_life) if ema_half_life > 0 else 0.0
        self.begin_phase(1e-3, None)

    def begin_phase(self, learning_rate: float, decay_over: int | None) -> None:
        """Forget the moments; with `decay_over` the learning rate falls to a tenth over so many updates."""
        self._learning_rate = learning_rate
        self._decay_over = decay_over
        self._updates = 0
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]

    def go_on_at(self, learning_rate: float) -> None:
        """Another rate from now on, with the moments as they are; not while one falls by its schedule."""
        if self._decay_over is None:
            self._learning_rate = learning_rate

    @property
    def learning_rate(self) -> float:
        """That of the next update."""
        if self._decay_over is None:
            return self._learning_rate
        return self._learning_rate * (1.0 - 0.9 * min(self._updates / self._decay_over, 1.0))

    def step(self, loss: torch.Tensor) -> bool:
        """Descend `loss` by one update; whether that was done, see `follow`."""
        return self.follow(torch.autograd.grad(loss, self._parameters))

    def chance(self, rank: int) -> torch.Generator:
        """Where one of several ranks has its chance from in this update; nothing of it need be kept."""
        words = np.random.SeedSequence((self._seed, self._taken, rank)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(words[0] >> 1))

    def gradient(self, loss: torch.Tensor | None) -> npt.NDArray[np.float32]:
        """That of `loss` by every parameter, flat; of None zeros."""
        if loss is None:
            return np.zeros(sum(p.numel() for p in self._parameters), np.float32)
        found = torch.autograd.grad(loss, self._parameters)
        return torch.cat([part.reshape(-1) for part in found]).numpy()

    def unflattened(self, gradient: npt.NDArray[np.float32]) -> list[torch.Tensor]:
        """A flat gradient by parameter."""
        cuts = np.split(gradient, np.cumsum([p.numel() for p in self._parameters])[:-1])
        return [torch.from_numpy(cut).view(p.shape) for cut, p in zip(cuts, self._parameters, strict=True)]

    def follow(self, gradients: Sequence[torch.Tensor]) -> bool:
        """One update along these gradients, one for each parameter; whether it was done.

        One that is no number, or longer than any sensible sample makes it, is not followed: a single reading of
        1e30 would make every weight NaN, one of 1e15 would fill Adam's memory for thousands of updates. Whoever
        trains the same batch again skips it again.
        """
        self._taken += 1
        squared = sum(float(gradient.square().sum()) for gradient in gradients)
        self.gradient_norm = math.sqrt(squared)
        if not squared < _ABSURD_NORM**2:  # true of NaN as well
            self.skipped += 1
            _log.warning("update_skipped", gradient_norm=self.gradient_norm, skipped=self.skipped)
            return False
        rate = self.learning_rate
        self._updates += 1
        step_size = rate / (1.0 - _BETA1**self._updates)
        root = math.sqrt(1.0 - _BETA2**self._updates)
        with torch.no_grad():
            for parameter, average, mean, square, gradient in zip(
                self._parameters, self._averages, self._means, self._squares, gradients, strict=True
            ):
                mean.lerp_(gradient, 1.0 - _BETA1)
                square.mul_(_BETA2).addcmul_(gradient, gradient, value=1.0 - _BETA2)
                parameter.addcdiv_(mean, square.sqrt().div_(root).add_(_EPSILON), value=-step_size)
                average.lerp_(parameter, 1.0 - self._keep)
        return True

    def averages(self) -> Arrays:
        """The averaged weights by name, copied."""
        return {name: np.array(t.numpy()) for name, t in zip(self._names, self._averages, strict=True)}

    def state(self) -> Arrays:
        """Weights, averages, Adam's moments, schedule and torch's random state."""
        decay = -1 if self._decay_over is None else self._decay_over
        state = {
            "schedule": np.array([self._learning_rate, decay, self._updates], np.float64),
            "taken": np.array([self._taken], np.int64),
            "torch_random": np.array(self.random.get_state().numpy()),
        }
        for kind, tensors in self._kinds().items():
            for name, tensor in zip(self._names, tensors, strict=True):
                state[f"{kind}.{name}"] = np.array(tensor.detach().numpy())
        return state

    def load_state(self, state: Arrays) -> None:
        """Go on from `state`.

        Raises:
            InvalidArtifact: the state is another policy's.
        """
        try:
            learning_rate, decay, updates = (float(number) for number in state["schedule"])
            self.begin_phase(learning_rate, None if decay < 0 else int(decay))
            self._updates = int(updates)
            self._taken = int(state["taken"][0]) if "taken" in state else 0  # checkpoints of one rank did not say
            with torch.no_grad():
                for kind, tensors in self._kinds().items():
                    for name, tensor in zip(self._names, tensors, strict=True):
                        saved = state[f"{kind}.{name}"]
                        if saved.shape != tuple(tensor.shape):
                            raise ValueError(f"{kind}.{name} has shape {saved.shape}, not {tuple(tensor.shape)}")
                        tensor.copy_(torch.tensor(saved))
            self.random.set_state(torch.tensor(state["torch_random"]))
        except (KeyError, ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"not a training state of this policy: {error!r}") from error

    def _kinds(self) -> dict[str, list[torch.Tensor]]:
        return {
            "weight": self._parameters,
            "average": self._averages,
            "mean": self._means,
            "square": self._squares,
        }
