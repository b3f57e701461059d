from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.payload_names import METADATA_KEY
from learner.errors import InvalidArtifact, UnfitEpisode, UnknownTask
from learner.policies import load_policy
from learner.policies.artifact import pack, unpack
from learner.policies.base import POSITIVE, UNCONDITIONED, Inference, PolicySpec
from learner.policies.chunked_network import ChunkedNetwork, weights_of
from schemas.events import Feature


def spec(state: int = 5, action: int = 2, chunk: int = 4, hidden: tuple[int, ...] = (16, 8)) -> PolicySpec:
    random = np.random.default_rng(7)
    return PolicySpec(
        architecture="chunked-mlp",
        hidden=hidden,
        features=(Feature(name="state", shape=(state,)), Feature(name="action", shape=(action,))),
        chunk=chunk,
        fps=10.0,
        tasks=("lift", "push"),
        state_mean=tuple(float(x) for x in random.normal(size=state).astype(np.float32)),
        state_std=tuple(float(x) for x in random.uniform(0.5, 2, size=state).astype(np.float32)),
    )


def artifact(of: PolicySpec, seed: int = 3) -> bytes:
    network = ChunkedNetwork(of, seed)
    return pack(of, weights_of(network.names(), network.parameters()))


def test_same_weights_give_the_same_bytes_and_another_seed_gives_others() -> None:
    assert artifact(spec()) == artifact(spec())
    assert artifact(spec(), seed=3) != artifact(spec(), seed=4)


def test_artifact_keeps_its_spec_exactly() -> None:
    read, _ = unpack(artifact(spec()))
    assert read == spec()


@settings(max_examples=30, deadline=None)
@given(
    state=st.integers(1, 12),
    action=st.integers(1, 6),
    chunk=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 20), max_size=3).map(tuple),
    task=st.sampled_from(["lift", "push"]),
    seed=st.integers(0, 1000),
)
def test_robot_plans_what_the_trained_network_plans(
    *, state: int, action: int, chunk: int, hidden: tuple[int, ...], task: str, seed: int
) -> None:
    of = spec(state, action, chunk, hidden)
    network = ChunkedNetwork(of, seed)
    policy = load_policy(pack(of, weights_of(network.names(), network.parameters())))
    seen = np.random.default_rng(seed).normal(size=state).astype(np.float32)
    with torch.no_grad():
        expected = network.plan(torch.from_numpy(seen[None]), torch.tensor([of.task_index(task)]))
    planned = policy.act(seen, task)
    assert planned.shape == (chunk, action)
    assert planned.dtype == np.float32
    np.testing.assert_allclose(planned, expected[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_conditioned_policy_acts_as_if_its_action_were_good_and_guidance_goes_beyond() -> None:
    of = spec().model_copy(update={"conditioned": True})
    network = ChunkedNetwork(of, 3)
    data = pack(of, weights_of(network.names(), network.parameters()))
    seen = np.random.default_rng(0).normal(size=5).astype(np.float32)
    with torch.no_grad():
        plain, positive = (
            network.plan(torch.from_numpy(seen[None]), torch.tensor([1]), torch.tensor([told]))[0].numpy()
            for told in (UNCONDITIONED, POSITIVE)
        )
    assert np.abs(plain - positive).max() > 1e-3
    np.testing.assert_allclose(load_policy(data).act(seen, "push"), positive, rtol=1e-4, atol=1e-5)
    guided = load_policy(data, Inference(guidance=2.0)).act(seen, "push")
    np.testing.assert_allclose(guided, plain + 2.0 * (positive - plain), rtol=1e-4, atol=1e-5)


def test_what_later_software_added_travels_only_where_it_is_used() -> None:
    assert "conditioned" not in spec().document()
    assert spec().model_copy(update={"conditioned": True}).document()["conditioned"] is True


def test_unknown_task_is_refused_by_name_with_those_that_are_known() -> None:
    policy = load_policy(artifact(spec()))
    with pytest.raises(UnknownTask, match=r"'juggle'.*lift, push"):
        policy.act(np.zeros(5, np.float32), "juggle")


def test_state_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6,\)"):
        load_policy(artifact(spec())).act(np.zeros(6, np.float32), "lift")


@pytest.mark.parametrize("data", [b"", b"x" * 100, safetensors.numpy.save({"a": np.zeros(3)})])
def test_bytes_that_are_no_policy_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArtifact):
        load_policy(data)


def test_unknown_architecture_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(InvalidArtifact, match="transformer"):
        load_policy(artifact(spec().model_copy(update={"architecture": "transformer"})))
    _, weights = unpack(artifact(spec()))
    with pytest.raises(InvalidArtifact, match="layer 0"):
        load_policy(pack(spec(state=6), weights))
    del weights["layer.1.bias"]
    with pytest.raises(InvalidArtifact, match=r"layer\.1\.bias"):
        load_policy(pack(spec(), weights))


def test_newer_format_is_refused() -> None:
    document = spec().model_dump(mode="json") | {"format": 2}
    data = safetensors.numpy.save({"a": np.zeros(3)}, metadata={METADATA_KEY: json.dumps(document)})
    with pytest.raises(InvalidArtifact, match="format 2"):
        load_policy(data)


def test_robot_of_another_layout_or_rate_does_not_fit() -> None:
    of = spec()
    of.require_fit(of.features, 10.0)
    with pytest.raises(UnfitEpisode, match="30"):
        of.require_fit(of.features, 30.0)
    with pytest.raises(UnfitEpisode, match="'state'"):
        of.require_fit((Feature(name="state", shape=(4,)), of.features[1]), 10.0)
    with pytest.raises(UnfitEpisode, match="no feature 'action'"):
        of.require_fit(of.features[:1], 10.0)


def test_loading_a_policy_needs_no_torch() -> None:
    code = "import sys, learner.policies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
