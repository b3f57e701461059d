"""The flow-matching policy as an algorithm trains it, in torch. `flow.py` is the same field for robots."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from learner.policies.base import PolicySpec
from learner.policies.flow import CONVOLUTIONS, STEPS, TIME_FEATURES, heads_of, shapes
from learner.replay import Batch


class FlowNetwork:
    """The transformer and its loss. Implements `learner.policies.base.TrainablePolicy`.

    Conditional flow matching (arXiv 2210.02747) on straight paths from noise to actions, as π0 (arXiv 2410.24164)
    has it; t is drawn uniformly.
    """

    def __init__(self, spec: PolicySpec, seed: int) -> None:
        """Draw the first weights from `seed`; torch's global random state is left alone.

        Raises:
            InvalidArtifact: the hidden layers are not of one width.
        """
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        self._weights = {
            name: _first(name, shape, generator).requires_grad_() for name, shape in shapes(spec).items()
        }
        self._mean, self._std, self._action_mean, self._action_std = (
            torch.tensor(values, dtype=torch.float32)
            for values in (spec.state_mean, spec.state_std, spec.action_mean, spec.action_std)
        )
        self._frequencies = math.pi * 2.0 ** torch.arange(TIME_FEATURES // 2) / 2.0

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        """Squared distance of the field from the straight path's, mean over valid targets, float32[B].

        The surrogate of −log π(a|s). A target that is not valid is attended by none.

        Raises:
            ValueError: the policy has a camera, and the batch no images of it.
        """
        mask = torch.from_numpy(batch.mask)
        actions = (torch.from_numpy(batch.actions) - self._action_mean) / self._action_std
        noise = torch.randn(actions.shape, generator=random)
        time = torch.rand(len(batch), generator=random)
        at = time[:, None, None]
        field = self._field(self._context(batch), (1.0 - at) * noise + at * actions, time, mask)
        errors = (field - (actions - noise)).square().mean(dim=2)
        return (errors * mask).sum(dim=1) / mask.sum(dim=1)

    def plan(self, batch: Batch, noise: torch.Tensor) -> torch.Tensor:
        """Actions for what a batch shows, from float32[B, chunk, a] noise: float32[B, chunk, a]."""
        context, actions = self._context(batch), noise
        everything = torch.ones(noise.shape[:2])
        for step in range(STEPS):
            time = torch.full((len(noise),), step / STEPS)
            actions = actions + self._field(context, actions, time, everything) / STEPS
        return actions * self._action_std + self._action_mean

    def parameters(self) -> list[torch.Tensor]:
        """All weights, in the order of `shapes`."""
        return list(self._weights.values())

    def names(self) -> list[str]:
        """Their names in the artifact."""
        return list(self._weights)

    def _context(self, batch: Batch) -> torch.Tensor:
        """Tokens of what is seen and told, float32[B, tokens, width]."""
        states = (torch.from_numpy(batch.states) - self._mean) / self._std
        tokens = [self._linear("state", states), self._weights["task"][torch.from_numpy(batch.tasks)]]
        tokens += [self._see(number, name, batch) for number, name in enumerate(self.spec.cameras)]
        if self.spec.conditioned:
            told = torch.zeros(len(batch), dtype=torch.int64)
            if batch.indicators is not None:
                told = torch.from_numpy(batch.indicators)
            tokens.append(self._weights["indicator"][told])
        return torch.stack(tokens, dim=1)

    def _field(
        self, context: torch.Tensor, actions: torch.Tensor, time: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        angles = time[:, None] * self._frequencies
        features = self._linear("time", torch.cat((angles.sin(), angles.cos()), dim=1))
        planned = self._linear("action", actions) + self._weights["place"] + features[:, None]
        hidden = torch.cat((context, planned), dim=1)
        visible = torch.cat((torch.ones(context.shape[:2]), mask), dim=1) > 0
        width = hidden.shape[2]
        for number in range(len(self.spec.hidden)):
            block = f"block.{number}"
            hidden = hidden + self._attend(block, functional.layer_norm(hidden, (width,)), visible)
            up = torch.relu(self._linear(f"{block}.up", functional.layer_norm(hidden, (width,))))
            hidden = hidden + self._linear(f"{block}.down", up)
        return self._linear("head", functional.layer_norm(hidden[:, context.shape[1] :], (width,)))

    def _attend(self, block: str, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        size, count, width = tokens.shape
        heads = heads_of(width)
        shared = self._linear(f"{block}.attend", tokens).view(size, count, 3, heads, width // heads)
        query, key, value = shared.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) / math.sqrt(width // heads)
        scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
        joined = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(size, count, width)
        return self._linear(f"{block}.join", joined)

    def _see(self, camera: int, name: str, batch: Batch) -> torch.Tensor:
        if name not in batch.images:
            raise ValueError(f"the policy sees {name!r}, and the batch holds no images of it")
        view = batch.images[name]
        seen = torch.from_numpy(view.images).float().permute(0, 3, 1, 2) / 127.5 - 1.0
        for number in range(len(CONVOLUTIONS) + 1):
            layer = f"camera.{camera}.{number}"
            weight, bias = self._weights[f"{layer}.weight"], self._weights[f"{layer}.bias"]
            seen = torch.relu(functional.conv2d(seen, weight, bias, stride=2, padding=1))
        present = torch.from_numpy(view.present)[:, None]
        return torch.where(present, seen.mean(dim=(2, 3)), self._weights[f"camera.{camera}.absent"])

    def _linear(self, name: str, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def _first(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """First value of a weight: biases 0, embeddings small, layers by their number of inputs."""
    if name.endswith(".bias"):
        return torch.zeros(shape)
    scale = math.prod(shape[1:]) ** -0.5 if name.endswith(".weight") else 0.1
    return torch.randn(shape, generator=generator) * scale
