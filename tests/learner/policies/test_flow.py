from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.footage import View
from infra.settings import LearnerSettings
from learner.algorithms import make_algorithm
from learner.errors import InvalidArtifact, UnfitEpisode
from learner.policies import Inference, load_policy
from learner.policies.artifact import pack, unpack
from learner.policies.base import POSITIVE, UNCONDITIONED, PolicySpec
from learner.policies.chunked_network import weights_of
from learner.policies.flow import FlowPolicy
from learner.policies.flow_network import FlowNetwork
from learner.replay import Batch
from schemas.events import Feature


def spec(
    *,
    state: int = 5,
    action: int = 2,
    chunk: int = 4,
    hidden: tuple[int, ...] = (16, 16),
    cameras: tuple[tuple[int, int], ...] = (),
    **changes: object,
) -> PolicySpec:
    """`cameras`: height and width of each."""
    random = np.random.default_rng(7)

    def floats(low: float, high: float, size: int) -> tuple[float, ...]:
        return tuple(float(x) for x in random.uniform(low, high, size).astype(np.float32))

    return PolicySpec(
        architecture="flow-transformer",
        hidden=hidden,
        features=(
            Feature(name="state", shape=(state,)),
            Feature(name="action", shape=(action,)),
            *(Feature(name=f"eye-{n}", dtype="uint8", shape=(*size, 3)) for n, size in enumerate(cameras)),
        ),
        cameras=tuple(f"eye-{n}" for n in range(len(cameras))),
        chunk=chunk,
        fps=10.0,
        tasks=("lift", "push"),
        state_mean=floats(-1, 1, state),
        state_std=floats(0.5, 2, state),
        action_mean=floats(-1, 1, action),
        action_std=floats(0.5, 2, action),
    ).model_copy(update=changes)


def artifact(of: PolicySpec, seed: int = 3) -> bytes:
    network = FlowNetwork(of, seed)
    return pack(of, weights_of(network.names(), network.parameters()))


def batch(of: PolicySpec, seed: int = 0, size: int = 8) -> Batch:
    random = np.random.default_rng(seed)
    mask = np.ones((size, of.chunk), np.float32)
    mask[::2, 1:] = 0
    return Batch(
        states=random.normal(size=(size, of.state_size)).astype(np.float32),
        tasks=random.integers(2, size=size),
        online=np.zeros(size, bool),
        actions=random.normal(size=(size, of.chunk, of.action_size)).astype(np.float32),
        mask=mask,
        weights=np.ones(size, np.float32),
        advantages=np.zeros(size, np.float32),
        images={
            name: View(random.integers(256, size=(size, *shape)).astype(np.uint8), np.arange(size) % 3 != 1)
            for name, shape in of.camera_shapes.items()
        },
    )


@settings(max_examples=20, deadline=None)
@given(
    state=st.integers(1, 8),
    action=st.integers(1, 4),
    chunk=st.integers(1, 4),
    layers=st.integers(1, 2),
    width=st.sampled_from([6, 8, 16]),
    cameras=st.sampled_from([(), ((9, 12),), ((8, 8), (12, 6))]),
    absent=st.booleans(),
    conditioned=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_robot_plans_what_the_trained_network_plans(
    *,
    state: int,
    action: int,
    chunk: int,
    layers: int,
    width: int,
    cameras: tuple[tuple[int, int], ...],
    absent: bool,
    conditioned: bool,
    seed: int,
) -> None:
    of = spec(
        state=state, action=action, chunk=chunk, hidden=(width,) * layers, cameras=cameras, conditioned=conditioned
    )
    policy = load_policy(artifact(of, seed))
    assert isinstance(policy, FlowPolicy)
    seen = batch(of, seed, size=1)
    if absent and seen.images:
        seen.images["eye-0"].present[0] = False
    images = {name: view.images[0] if view.present[0] else None for name, view in seen.images.items()}
    noise = policy.noise(seen.states[0], of.tasks[seen.tasks[0]])
    told = replace(seen, indicators=np.array([POSITIVE]))
    with torch.no_grad():
        expected = FlowNetwork(of, seed).plan(told, torch.from_numpy(noise[None]))[0].numpy()
    planned = policy.act(seen.states[0], of.tasks[seen.tasks[0]], images)
    assert planned.shape == (chunk, action)
    assert planned.dtype == np.float32
    np.testing.assert_allclose(planned, expected, rtol=1e-3, atol=1e-4)


def test_the_same_seed_and_state_give_the_same_plan_in_any_order_and_another_seed_another() -> None:
    data, random = artifact(spec()), np.random.default_rng(0)
    states = random.normal(size=(3, 5)).astype(np.float32)
    one, other = load_policy(data), load_policy(data)
    forwards = [one.act(state, "push") for state in states]
    backwards = [other.act(state, "push") for state in states[::-1]][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert np.abs(load_policy(data, Inference(seed=1)).act(states[0], "push") - forwards[0]).max() > 1e-3


def test_guidance_goes_beyond_what_is_told() -> None:
    of = spec(conditioned=True)
    data, state = artifact(of), np.zeros(5, np.float32)
    plain, same, beyond = (load_policy(data, Inference(guidance=g)).act(state, "lift") for g in (0.0, 1.0, 2.0))
    seen = replace(batch(of, size=1), states=state[None], tasks=np.array([0]))
    policy = load_policy(data)
    assert isinstance(policy, FlowPolicy)
    noise = torch.from_numpy(policy.noise(state, "lift")[None])
    for told, planned in ((UNCONDITIONED, plain), (POSITIVE, same)):
        with torch.no_grad():
            expected = FlowNetwork(of, 3).plan(replace(seen, indicators=np.array([told])), noise)[0].numpy()
        np.testing.assert_allclose(planned, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(beyond - plain).max() > np.abs(same - plain).max()


def test_masked_targets_have_no_part_in_the_loss() -> None:
    network = FlowNetwork(spec(), 1)
    one, other = batch(spec()), batch(spec())
    other.actions[other.mask == 0] = 1e6
    first, second = (network.losses(b, torch.Generator().manual_seed(0)).detach() for b in (one, other))
    np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_training_finds_the_actions_and_keeps_two_ways_apart() -> None:
    """Where demonstrations go left or right, a plan goes one of the two ways, and not through the middle."""
    of = spec(action=1, chunk=1, hidden=(32,), action_mean=(0.0,), action_std=(1.0,))
    algorithm = make_algorithm(LearnerSettings(architecture="flow-transformer", ema_half_life=20.0), of)
    algorithm.begin_phase(3e-3)
    random = np.random.default_rng(0)
    for _ in range(500):
        made = batch(of, size=64)
        made.actions[:, 0, 0] = np.where(random.random(64) < 0.5, -1.0, 1.0)
        metrics = algorithm.update(made)
    assert metrics.losses.shape == (64,)
    policy = load_policy(pack(of, algorithm.weights()))
    planned = np.array([policy.act(random.normal(size=5).astype(np.float32), "push")[0, 0] for _ in range(60)])
    assert (np.abs(np.abs(planned) - 1.0) < 0.35).mean() > 0.8
    assert 0.2 < (planned > 0).mean() < 0.8


def test_a_camera_is_needed_where_it_was_trained_with() -> None:
    of = spec(cameras=((8, 8),))
    policy, state = load_policy(artifact(of)), np.zeros(5, np.float32)
    for images in (None, {"eye-1": np.zeros((8, 8, 3), np.uint8)}, {"eye-0": np.zeros((8, 9, 3), np.uint8)}):
        with pytest.raises(ValueError, match=r"'eye-0'.*\(8, 8, 3\)"):
            policy.act(state, "lift", images)
    black, blind = (policy.act(state, "lift", {"eye-0": image}) for image in (np.zeros((8, 8, 3), np.uint8), None))
    assert np.abs(black - blind).max() > 1e-4
    network = FlowNetwork(of, 1)
    with pytest.raises(ValueError, match="no images"):
        network.losses(replace(batch(of), images={}), torch.Generator())
    assert np.isfinite(network.losses(batch(of), torch.Generator()).detach().numpy()).all()


def test_what_an_absent_image_holds_has_no_part_in_the_loss() -> None:
    of = spec(cameras=((8, 8),))
    network, one, other = FlowNetwork(of, 1), batch(of), batch(of)
    view = other.images["eye-0"]
    view.images[~view.present] = 7
    first, second = (network.losses(b, torch.Generator().manual_seed(0)) for b in (one, other))
    np.testing.assert_array_equal(first.detach().numpy(), second.detach().numpy())
    gradients = torch.autograd.grad(first.sum(), network.parameters(), allow_unused=True)
    moved = dict(zip(network.names(), gradients, strict=True))
    assert moved["camera.0.absent"].abs().max() > 0
    assert moved["camera.0.0.weight"].abs().max() > 0


def test_a_camera_that_shows_no_colour_images_is_refused() -> None:
    depth = Feature(name="depth", dtype="uint16", shape=(8, 8))
    of = spec().model_copy(update={"features": (*spec().features, depth), "cameras": ("depth",)})
    with pytest.raises(UnfitEpisode, match=r"uint8 \(height, width, 3\)"):
        FlowNetwork(of, 1)
    with pytest.raises(UnfitEpisode, match="no feature 'depth'"):
        of.require_fit(of.features[:2], 10.0)


def test_wrong_shapes_and_uneven_layers_are_refused() -> None:
    _, weights = unpack(artifact(spec()))
    with pytest.raises(InvalidArtifact, match=r"state\.weight"):
        load_policy(pack(spec(state=6), weights))
    with pytest.raises(InvalidArtifact, match="one width"):
        FlowNetwork(spec(hidden=(8, 16)), 1)


def test_a_robot_needs_no_torch_to_fly_it() -> None:
    code = (
        "import sys, numpy; from learner.policies import load_policy; "
        "load_policy(sys.stdin.buffer.read()).act(numpy.zeros(5, numpy.float32), 'lift'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], input=artifact(spec()), check=False).returncode == 0
