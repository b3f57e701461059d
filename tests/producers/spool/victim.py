"""A robot to be killed: records short episodes, and writes into a ledger what was recorded.

In a module of its own, so that a server process can have it imported before it forks.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np

from infra.settings import Settings
from producers.robot import RobotClient
from tests.producers.fakes import FEATURES

ROBOT = "victim"


def live(environment: dict[str, str], data_dir: Path, ledger: Path, seed: int) -> None:
    """Until it is killed."""
    os.environ.update(environment)
    chance = random.Random(seed)
    lines = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    state, action = np.zeros(3), np.ones(2)
    client = RobotClient(Settings(), ROBOT, data_dir, heartbeat_interval=0.2)
    while True:
        with client.episode(task="push", instruction="Push.", features=FEATURES, fps=10.0) as episode:
            taken = None
            for _ in range(chance.randint(1, 60)):
                episode.step(state=state, action=action)
                os.write(lines, f"{client.boot_epoch} {episode.episode_id} {episode.step_count - 1}\n".encode())
                if chance.random() < 0.1 and taken is None:
                    taken = episode.intervention(operator="ada", reason="drifts").begin()
                elif chance.random() < 0.1 and taken is not None:
                    taken.close()
                    taken = None
