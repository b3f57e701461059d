from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.policies.artifact import pack_json
from producers.errors import PolicyRefused
from producers.policy_fit import RobotKind, require_fit
from schemas.events import Feature
from tests.producers.fakes import FEATURES

KIND = RobotKind(FEATURES, fps=10.0, chunks=(2, 4))


def artifact(tmp_path: Path, **changes: Any) -> Path:
    document = {
        "features": [feature.model_dump(mode="json") for feature in FEATURES],
        "chunk": 4,
        "fps": 10.0,
        "state_mean": [0.0] * 3,
        "state_std": [1.0] * 3,
        "tasks": ["more than a robot asks for"],
    }
    path = tmp_path / "policy.safetensors"
    path.write_bytes(pack_json(document | changes, {"w": np.zeros(3, np.float32)}))
    return path


def test_a_policy_for_this_robot_fits_and_the_robot_may_measure_more(tmp_path: Path) -> None:
    require_fit(artifact(tmp_path), KIND)
    more = RobotKind((*FEATURES, Feature(name="force", shape=(6,))), fps=10.0)
    require_fit(artifact(tmp_path), more)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"features": [{"name": "state", "shape": [4]}]}, r"'state' is float32\[4\], ours float32\[3\]"),
        ({"features": [{"name": "force", "shape": [3]}]}, "ours missing"),
        ({"features": []}, "features"),
        ({"fps": 30.0}, "30 Hz, the robot at 10 Hz"),
        ({"chunk": 8}, "plans 8 actions"),
        ({"state_mean": [0.0] * 2}, "normalisation is for 2"),
        ({"state_std": [1.0, 0.0, 1.0]}, "not finite and positive"),
        ({"chunk": "many"}, "chunk"),
    ],
)
def test_a_policy_for_another_robot_is_refused(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match=why):
        require_fit(artifact(tmp_path, **changes), KIND)


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_policy_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(PolicyRefused, match="no safetensors file of a policy"):
        require_fit(path, KIND)


def test_a_kind_of_robot_that_no_policy_is_for_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="'action' has dtype 'float64'"):
        RobotKind((FEATURES[0], Feature(name="action", dtype="float64", shape=(2,))), fps=10.0)
