"""A robot of the fleet: records episodes, runs the fleet's policy.  Run: python -m examples.one_robot [DIR]"""

import signal
import sys

import numpy as np

from infra.settings import load_settings
from learner.policies import Policy, load_policy
from producers.errors import RobotClientError
from producers.policy_fit import RobotKind
from producers.policy_swap import swap
from producers.robot import RobotClient
from schemas.events import Feature

JOINTS = tuple(f"joint_{n}" for n in range(7))
FEATURES = tuple(Feature(name=name, shape=(7,), names=JOINTS) for name in ("state", "action"))


def run(data_dir: str) -> None:
    """Two episodes; in the second half of each an operator corrects. Put sensors and motors where the dots are."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as Ctrl-C: it may raise anywhere, also inside step()
    policy: Policy | None = None
    with RobotClient(load_settings(), "arm-1", data_dir) as client:  # SOP_* variables, or .sop/stack.env
        inbox = client.follow("default", kind=RobotKind(FEATURES, fps=30.0))
        inbox.wait_for(lambda _: True, timeout=5.0)  # a first boot has none yet; later ones do not wait
        for _ in range(2):
            policy = swap(client, inbox, load_policy) or policy  # verified, for this robot; between episodes only
            with client.episode(task="hold", instruction="Hold still.", features=FEATURES, fps=30) as episode:
                for _ in range(30):
                    state = np.ones(7, np.float32)  # ... look
                    action = policy.act(state, "hold")[0] if policy else np.zeros(7, np.float32)  # ... move
                    episode.step(state=state, action=action)  # on this disk; never waits for the network
                with episode.intervention(operator="ada", reason="drifts to the left"):
                    for _ in range(30):
                        episode.step(state=state, action=action + np.float32(0.01), proposed_action=action)
                episode.end(success=True, final_state=state)


if __name__ == "__main__":
    try:
        run(sys.argv[1] if len(sys.argv) > 1 else "artifacts/arm-1")
    except RobotClientError as error:  # off line, say: what was recorded is kept, and the next run sends it
        sys.exit(f"error: {error}")
