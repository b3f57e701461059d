"""A robot with a camera, to be killed: what it handed over is in a ledger, with every pixel the step's number."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from infra.settings import Settings
from producers.robot import RobotClient
from schemas.events import Feature
from tests.producers.fakes import FEATURES

ROBOT = "victim-with-a-camera"
CAMERA = Feature(name="depth", dtype="uint16", shape=(32, 32))


def live(environment: dict[str, str], data_dir: Path, ledger: Path, _seed: int) -> None:
    """Until it is killed."""
    os.environ.update(environment)
    lines = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    state, action = np.zeros(3), np.ones(2)
    client = RobotClient(Settings(), ROBOT, data_dir, heartbeat_interval=0.2)
    encoder = None
    while True:
        with client.episode(
            task="push", instruction="Push.", features=(*FEATURES, CAMERA), fps=50.0, max_steps=1_000
        ) as episode:
            life = client._recorder.encoder
            if life is not None and life.process.pid != encoder:
                encoder = life.process.pid
                os.write(lines, f"encoder {encoder}\n".encode())
            for step in range(60):
                image = np.full((32, 32), step, np.uint16)
                episode.step(state=state, action=action, frames={"depth": image} if step % 3 else None)
                os.write(lines, f"{episode.episode_id} {step}\n".encode())
                time.sleep(0.004)
