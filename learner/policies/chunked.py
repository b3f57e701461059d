"""The chunked policy as a robot runs it: state and task in, the next `chunk` actions out.

In numpy, so that a robot's computer needs no torch (2.5 s of CPU to import, against 0.3) and a plan costs
about 20 µs. `chunked_network.py` is the same function in torch; a test holds the two together.
"""

from __future__ import annotations

import itertools

import numpy as np

from learner.errors import InvalidArtifact
from learner.policies.artifact import Arrays
from learner.policies.base import Floats, Images, Inference, PolicySpec
from learner.policies.guidance import guided

ARCHITECTURE = "chunked-mlp"

INDICATORS: Floats = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
"""Inputs for UNCONDITIONED, NEGATIVE and POSITIVE."""


class ChunkedPolicy:
    """An MLP over the normalised state and the task's one-hot. Implements `learner.policies.base.Policy`."""

    def __init__(self, spec: PolicySpec, weights: Arrays, inference: Inference) -> None:
        """Take the weights of an artifact; nothing is left to chance here.

        Raises:
            InvalidArtifact: a layer is missing or has another shape than the spec says.
        """
        self.spec = spec
        self._guidance = inference.guidance
        widths = layer_widths(spec)
        self._layers: list[tuple[Floats, Floats]] = []
        for number, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            try:
                weight, bias = weights[f"layer.{number}.weight"], weights[f"layer.{number}.bias"]
            except KeyError as error:
                raise InvalidArtifact(f"the weights lack {error}") from error
            if weight.shape != (fan_out, fan_in) or bias.shape != (fan_out,):
                raise InvalidArtifact(f"layer {number} is {weight.shape}, the spec says {(fan_out, fan_in)}")
            self._layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        self._mean = np.asarray(spec.state_mean, np.float32)
        self._std = np.asarray(spec.state_std, np.float32)

    def act(self, state: Floats, task: str, images: Images | None = None) -> Floats:  # noqa: ARG002 - it has no eyes
        """Plan the next actions: `state` float32[d] to float32[chunk, a].

        Raises:
            UnknownTask: the policy never saw the task.
            ValueError: the state has another shape.
        """
        if state.shape != self._mean.shape:
            raise ValueError(f"the state has shape {state.shape}, the policy takes {self._mean.shape}")
        one_hot = np.zeros(len(self.spec.tasks), np.float32)
        one_hot[self.spec.task_index(task)] = 1.0
        inputs = np.concatenate(((state.astype(np.float32, copy=False) - self._mean) / self._std, one_hot))
        if not self.spec.conditioned:
            return self._plan(inputs)
        return guided(lambda told: self._plan(np.concatenate((inputs, INDICATORS[told]))), self._guidance)

    def _plan(self, hidden: Floats) -> Floats:
        for weight, bias in self._layers[:-1]:
            hidden = np.maximum(weight @ hidden + bias, 0.0)
        weight, bias = self._layers[-1]
        return (weight @ hidden + bias).reshape(self.spec.chunk, self.spec.action_size)


def layer_widths(spec: PolicySpec) -> list[int]:
    """Widths from input to output: state, one-hot and indicator, hidden layers, chunk times action."""
    told = INDICATORS.shape[1] if spec.conditioned else 0
    return [spec.state_size + len(spec.tasks) + told, *spec.hidden, spec.chunk * spec.action_size]
