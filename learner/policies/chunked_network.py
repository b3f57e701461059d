"""The chunked policy as an algorithm trains it, in torch. `chunked.py` is the same function for robots."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from learner.policies.artifact import Arrays
from learner.policies.base import PolicySpec
from learner.policies.chunked import INDICATORS, layer_widths
from learner.replay import Batch


class ChunkedNetwork:
    """The MLP and its loss. Implements `learner.policies.base.TrainablePolicy`."""

    def __init__(self, spec: PolicySpec, seed: int) -> None:
        """Draw the first weights from `seed`; torch's global random state is left alone."""
        self.spec = spec
        widths = layer_widths(spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        modules: list[nn.Module] = []
        for layer in layers:
            modules += [layer, nn.ReLU()]
        self._network = nn.Sequential(*modules[:-1])
        self._layers = layers
        self._mean = torch.tensor(spec.state_mean, dtype=torch.float32)
        self._std = torch.tensor(spec.state_std, dtype=torch.float32)
        self._one_hots = torch.eye(len(spec.tasks))
        self._indicators = torch.from_numpy(INDICATORS)

    def plan(
        self, states: torch.Tensor, tasks: torch.Tensor, indicators: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Actions for float32[B, d] states and int64[B] tasks: float32[B, chunk, a].

        `indicators` int64[B] are heard by a conditioned policy only; None tells it nothing.
        """
        parts = [(states - self._mean) / self._std, self._one_hots[tasks]]
        if self.spec.conditioned:
            told = torch.zeros_like(tasks) if indicators is None else indicators
            parts.append(self._indicators[told])
        inputs = torch.cat(parts, dim=1)
        planned: torch.Tensor = self._network(inputs)
        return planned.view(len(states), self.spec.chunk, self.spec.action_size)

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:  # noqa: ARG002 - nothing is drawn
        """Mean squared error of each sample's valid targets, float32[B]: the surrogate of -log π(a|s)."""
        told = None if batch.indicators is None else torch.from_numpy(batch.indicators)
        planned = self.plan(torch.from_numpy(batch.states), torch.from_numpy(batch.tasks), told)
        mask = torch.from_numpy(batch.mask)
        errors = (planned - torch.from_numpy(batch.actions)).square().mean(dim=2)
        return (errors * mask).sum(dim=1) / mask.sum(dim=1)

    def parameters(self) -> list[torch.Tensor]:
        """Weights and biases, layer by layer."""
        return [tensor for layer in self._layers for tensor in (layer.weight, layer.bias)]

    def names(self) -> list[str]:
        """Their names in the artifact."""
        return [f"layer.{n}.{kind}" for n in range(len(self._layers)) for kind in ("weight", "bias")]


def weights_of(names: list[str], tensors: list[torch.Tensor]) -> Arrays:
    """Tensors as numpy arrays by name, copied."""
    return {name: np.array(t.detach().numpy()) for name, t in zip(names, tensors, strict=True)}
