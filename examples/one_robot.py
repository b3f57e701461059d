"""One robot on the fleet: records an episode, follows a policy.  Run: python -m examples.one_robot DATA_DIR

Settings come from the environment or `.sop/stack.env`; replace `look` and `think` by your robot, and move it.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.settings import load_settings
from producers.robot import RobotClient
from schemas.events import Feature

FEATURES = (
    Feature(name="state", shape=(7,), names=tuple(f"joint_{n}" for n in range(7))),
    Feature(name="action", shape=(7,), names=tuple(f"joint_{n}" for n in range(7))),
)


def look() -> NDArray[np.float32]:  # noqa: D103
    return np.zeros(7, np.float32)


def think(state: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: D103
    return -0.1 * state  # your policy: load the bytes that `policy_file.read()` returns


def main(data_dir: Path) -> None:
    """Record two seconds; an operator corrects the second one."""
    with RobotClient(load_settings(), "robot-1", data_dir) as client:
        inbox = client.follow("default")
        if policy_file := inbox.wait_for(lambda version: version.version >= 1, timeout=1.0):
            client.activate(policy_file)  # between episodes only; the fleet is told
        with client.episode(task="hold", instruction="Hold still.", features=FEATURES, fps=30) as episode:
            for _ in range(30):
                state = look()
                episode.step(state=state, action=think(state), reward=0.0)  # never waits for the network
            with episode.intervention(operator="ada", reason="drifts to the left"):
                for _ in range(30):
                    state = look()
                    episode.step(state=state, action=think(state) + 0.01, proposed_action=think(state))
            episode.end(success=True, final_state=look())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
