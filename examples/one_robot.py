"""One robot on the fleet: records episodes, runs what the fleet runs.  Run: python -m examples.one_robot DATA_DIR

Settings come from the environment or `.sop/stack.env`. Fill in `look`, `act` and `load`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from infra.settings import load_settings
from producers.policy_fit import RobotKind
from producers.policy_swap import swap
from producers.robot import RobotClient
from schemas.events import Feature

Vector = NDArray[np.float32]
Policy = Callable[[Vector], Vector]
JOINTS = tuple(f"joint_{n}" for n in range(7))
FEATURES = (Feature(name="state", shape=(7,), names=JOINTS), Feature(name="action", shape=(7,), names=JOINTS))


def look() -> Vector:  # noqa: D103
    return np.ones(7, np.float32)


def act(action: Vector) -> None:
    """Move."""


def hold(_state: Vector) -> Vector:  # noqa: D103
    return np.zeros(7, np.float32)


def load(artifact: bytes) -> Policy:  # noqa: D103
    weights = safetensors.numpy.load(artifact)["w"]
    return lambda state: weights @ state


def main(data_dir: Path) -> None:
    """Two episodes; in the second half of each an operator corrects."""
    with RobotClient(load_settings(), "robot-1", data_dir) as client:
        inbox = client.follow("default", kind=RobotKind(FEATURES, fps=30.0))
        inbox.wait_for(lambda _: True, timeout=5.0)  # a first boot has nothing yet; later ones do not wait
        policy: Policy = hold
        for _ in range(2):
            policy = swap(client, inbox, load) or policy  # between episodes only; the fleet is told
            with client.episode(task="hold", instruction="Hold still.", features=FEATURES, fps=30) as episode:
                for _ in range(30):
                    state = look()
                    act(action := policy(state))
                    episode.step(state=state, action=action)  # on this disk; never waits for the network
                with episode.intervention(operator="ada", reason="drifts to the left"):
                    for _ in range(30):
                        state = look()
                        act(action := policy(state) + np.float32(0.01))
                        episode.step(state=state, action=action, proposed_action=policy(state))
                episode.end(success=True, final_state=look())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
