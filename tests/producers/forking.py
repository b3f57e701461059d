"""A robot to be killed, whose program forked a process.  Run: python -m tests.producers.forking DIR"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from infra.settings import KafkaSettings, RegistrySettings, Settings
from producers.robot import RobotClient
from schemas.events import Feature
from tests.producers.fakes import FEATURES

CAMERA = Feature(name="depth", dtype="uint16", shape=(32, 32))
NOWHERE = Settings(
    kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"), registry=RegistrySettings(url="http://127.0.0.1:1")
)


def main(data_dir: Path) -> None:
    """Have a child print its process id once something is recorded, and wait to be killed."""
    client = RobotClient(NOWHERE, "forks", data_dir)
    episode = client.episode(task="t", instruction="", features=(*FEATURES, CAMERA), fps=50.0, max_steps=100)
    image = np.zeros((32, 32), np.uint16)
    episode.step(state=np.zeros(3), action=np.zeros(2), frames={"depth": image})
    if os.fork() == 0:
        # Said by the child: by now it has let go of what is the robot's.
        sys.stdout.write(f"{os.getpid()}\n")
        sys.stdout.flush()
        time.sleep(600)
        os._exit(0)
    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
