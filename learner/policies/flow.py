"""The flow-matching policy as a robot runs it: noise becomes the next `chunk` actions, in a few steps.

A small transformer over tokens for the state, the task (one embedding for each, where a language model's of its
instruction would be), each camera if there are any, the advantage indicator if it is conditioned, and each planned
action. In numpy, as `chunked.py`; `flow_network.py` is the same in torch, and a test holds the two together.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from learner.errors import InvalidArtifact
from learner.policies.artifact import Arrays
from learner.policies.base import Floats, Images, Inference, PolicySpec
from learner.policies.guidance import guided

ARCHITECTURE = "flow-transformer"
STEPS = 10
"""Euler steps from noise (t = 0) to actions (t = 1)."""

TIME_FEATURES = 16
CONVOLUTIONS = (16, 32)
"""Channels of a camera's 3×3 convolutions with stride 2; a last one has the transformer's width."""

_EPSILON = np.float32(1e-5)


def shapes(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Every weight by name.

    Raises:
        InvalidArtifact: the hidden layers are not of one width.
        UnfitEpisode: a camera is none.
    """
    if not spec.hidden or len(set(spec.hidden)) != 1:
        raise InvalidArtifact(f"{ARCHITECTURE} has layers of one width, not {list(spec.hidden)}")
    width, action = spec.hidden[0], spec.action_size
    found: dict[str, tuple[int, ...]] = {"task": (len(spec.tasks), width), "place": (spec.chunk, width)}
    if spec.conditioned:
        found["indicator"] = (3, width)
    linear = {"state": (width, spec.state_size), "action": (width, action), "time": (width, TIME_FEATURES)}
    for number in range(len(spec.hidden)):
        linear[f"block.{number}.attend"] = (3 * width, width)
        linear[f"block.{number}.join"] = (width, width)
        linear[f"block.{number}.up"] = (2 * width, width)
        linear[f"block.{number}.down"] = (width, 2 * width)
    linear["head"] = (action, width)
    for name, (fan_out, fan_in) in linear.items():
        found |= {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}
    for camera, (_, _, colours) in enumerate(spec.camera_shapes.values()):
        found[f"camera.{camera}.absent"] = (width,)
        channels = [colours, *CONVOLUTIONS, width]
        for number in range(len(channels) - 1):
            found[f"camera.{camera}.{number}.weight"] = (channels[number + 1], channels[number], 3, 3)
            found[f"camera.{camera}.{number}.bias"] = (channels[number + 1],)
    return found


def heads_of(width: int) -> int:
    """Attention heads: four, where the width can be shared out among so many."""
    return 4 if width % 4 == 0 else 1


def time_features(time: Floats) -> Floats:
    """Sines and cosines of t in [0, 1], float32[..., TIME_FEATURES] of float32[...]."""
    half = TIME_FEATURES // 2
    angles = time[..., None] * (math.pi * 2.0 ** np.arange(half) / 2.0).astype(np.float32)
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=-1).astype(np.float32)


class FlowPolicy:
    """Implements `learner.policies.base.Policy`. The same seed, state and task always give the same plan."""

    def __init__(self, spec: PolicySpec, weights: Arrays, inference: Inference) -> None:
        """Take the weights of an artifact.

        Raises:
            InvalidArtifact: a weight is missing or has another shape than the spec says.
        """
        self.spec = spec
        self._inference = inference
        self._weights: dict[str, Floats] = {}
        for name, shape in shapes(spec).items():
            if name not in weights or weights[name].shape != shape:
                raise InvalidArtifact(f"the weights lack {name} of shape {shape}")
            self._weights[name] = weights[name].astype(np.float32)
        self._cameras = spec.camera_shapes
        self._mean, self._std = (np.asarray(v, np.float32) for v in (spec.state_mean, spec.state_std))
        self._action_mean = np.asarray(spec.action_mean, np.float32)
        self._action_std = np.asarray(spec.action_std, np.float32)
        times = np.arange(STEPS, dtype=np.float32) / np.float32(STEPS)
        self._times = self._linear("time", time_features(times))

    def act(self, state: Floats, task: str, images: Images | None = None) -> Floats:
        """Plan the next actions: `state` float32[d] to float32[chunk, a].

        Raises:
            UnknownTask: the policy never saw the task.
            ValueError: the state has another shape, or a camera's image is missing or has another.
        """
        return self.plan(state, task, self.noise(state, task), images)

    def noise(self, state: Floats, task: str) -> Floats:
        """Where the plan for this state begins, float32[chunk, a]; decided by the seed and what is seen alone."""
        seen = zlib.crc32(task.encode(), zlib.crc32(np.ascontiguousarray(state, np.float32).tobytes()))
        random = np.random.Generator(np.random.Philox(key=[self._inference.seed, seen]))
        return random.standard_normal((self.spec.chunk, self.spec.action_size), np.float32)

    def plan(self, state: Floats, task: str, noise: Floats, images: Images | None = None) -> Floats:
        """As `act`, from this noise (float32[chunk, a])."""
        if state.shape != self._mean.shape:
            raise ValueError(f"the state has shape {state.shape}, the policy takes {self._mean.shape}")
        tokens = [
            self._linear("state", (state.astype(np.float32, copy=False) - self._mean) / self._std),
            self._weights["task"][self.spec.task_index(task)],
        ]
        tokens += [self._see(number, name, images or {}) for number, name in enumerate(self.spec.cameras)]
        actions = noise
        for step in range(STEPS):
            actions = actions + self._told(tokens, actions, step) / np.float32(STEPS)
        return actions * self._action_std + self._action_mean

    def _told(self, tokens: list[Floats], actions: Floats, step: int) -> Floats:
        """The field, under I = 1 where the policy is conditioned."""
        if not self.spec.conditioned:
            return self._field(tokens, actions, step)

        def answer(told: int) -> Floats:
            return self._field([*tokens, self._weights["indicator"][told]], actions, step)

        return guided(answer, self._inference.guidance)

    def _field(self, context: list[Floats], actions: Floats, step: int) -> Floats:
        planned = self._linear("action", actions) + self._weights["place"] + self._times[step]
        hidden = np.concatenate((np.stack(context), planned))
        for number in range(len(self.spec.hidden)):
            hidden = hidden + self._attend(f"block.{number}", _normed(hidden))
            up = np.maximum(self._linear(f"block.{number}.up", _normed(hidden)), 0.0)
            hidden = hidden + self._linear(f"block.{number}.down", up)
        return self._linear("head", _normed(hidden[len(context) :]))

    def _attend(self, block: str, tokens: Floats) -> Floats:
        count, width = tokens.shape
        heads = heads_of(width)
        shared = self._linear(f"{block}.attend", tokens).reshape(count, 3, heads, width // heads)
        query, key, value = shared.transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(width // heads))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        joined = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        return self._linear(f"{block}.join", joined.transpose(1, 0, 2).reshape(count, width))

    def _see(self, camera: int, name: str, images: Images) -> Floats:
        wanted = self._cameras[name]
        if name not in images:
            raise ValueError(f"the policy takes an image of {name!r}, of shape {wanted}")
        image = images[name]
        if image is None:
            return self._weights[f"camera.{camera}.absent"]
        if image.shape != wanted or image.dtype != np.uint8:
            raise ValueError(f"{name!r} shows {image.dtype}{image.shape}, the policy takes uint8{wanted}")
        seen = image.astype(np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1.0)
        for number in range(len(CONVOLUTIONS) + 1):
            layer = f"camera.{camera}.{number}"
            weight, bias = self._weights[f"{layer}.weight"], self._weights[f"{layer}.bias"]
            padded = np.pad(seen, ((0, 0), (1, 1), (1, 1)))
            patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
            seen = np.maximum(np.tensordot(weight, patches, ((1, 2, 3), (0, 3, 4))) + bias[:, None, None], 0.0)
        pooled: Floats = seen.mean(axis=(1, 2), dtype=np.float32)
        return pooled

    def _linear(self, name: str, inputs: Floats) -> Floats:
        return inputs @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]


def _normed(tokens: Floats) -> Floats:
    """Each token with mean 0 and variance 1."""
    centred = tokens - tokens.mean(axis=-1, keepdims=True)
    normed: Floats = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + _EPSILON)
    return normed
