"""What the README tells a robot engineer to paste, run as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.deploy import deploy
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.settings import load_settings
from schemas.topics import ROBOT_STEPS

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_records_its_sixty_steps(stack: Stack, tmp_path: Path) -> None:
    env_file = tmp_path / "stack.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in stack.environment().items()))
    settings = load_settings(env_file)
    deploy(settings)
    environment = {**os.environ, "SOP_ENV_FILE": str(env_file)}
    for _ in range(2):  # the second boot finds the first one's directory
        command = [sys.executable, "-m", "examples.one_robot", str(tmp_path / "robot")]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=120)
    reader = LogReader(settings.kafka, "test-one-robot")
    messages = list(reader.read_to_end(all_partitions(reader, [ROBOT_STEPS]), 60))
    reader.close()
    assert sum(message.key() == b"robot-1" for message in messages) == 120
