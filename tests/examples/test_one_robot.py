"""What the README tells a robot engineer to paste, run as it stands."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from examples.one_robot import FEATURES
from infra.decoder import event_in
from infra.deploy import deploy
from infra.kafka import EventProducer, LogReader, OutRecord
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.object_store import ObjectStore, sha256_hex
from infra.policies.keys import SigningKey
from infra.registry import Registry
from infra.settings import Settings, load_settings
from learner.policies import PolicySpec
from learner.policies.artifact import pack
from learner.policies.chunked import ARCHITECTURE, layer_widths
from producers.policy_inbox import PolicyInbox
from producers.robot import RobotClient
from schemas.codec import encode, frame, latest
from schemas.events import PolicyVersion, Step
from schemas.topics import POLICY_VERSIONS, ROBOT_STEPS

ROOT = Path(__file__).resolve().parents[2]
KEY = SigningKey.generate()


def publish(settings: Settings) -> None:
    """A policy as `sop learn` makes them, which commands 0.5 whatever it sees."""
    spec = PolicySpec(
        architecture=ARCHITECTURE,
        hidden=(4,),
        features=FEATURES,
        chunk=2,
        fps=30.0,
        tasks=("hold",),
        state_mean=(0.0,) * 7,
        state_std=(1.0,) * 7,
    )
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for number, (fan_in, fan_out) in enumerate(pairwise(layer_widths(spec))):
        weights[f"layer.{number}.weight"] = np.zeros((fan_out, fan_in), np.float32)
        weights[f"layer.{number}.bias"] = np.full(fan_out, 0.5, np.float32)
    data = pack(spec, {**weights, "layer.0.bias": np.zeros(4, np.float32)})
    version = PolicyVersion(
        policy="default",
        version=1,
        artifact_uri=ObjectStore(settings.s3).put("policies/one-robot", data),
        sha256=sha256_hex(data),
        size_bytes=len(data),
        algorithm="bc",
        learner_step=1,
        episodes_admitted=0,
        offsets=(),
        config="{}",
        code_version="0",
        published_at=datetime.now(UTC),
    )
    schema_id = Registry(settings.registry).id_of(POLICY_VERSIONS, latest(PolicyVersion.record))
    producer = EventProducer(settings.kafka, "test-learner")
    producer.send(OutRecord(POLICY_VERSIONS, b"default/1", frame(schema_id, encode(KEY.sign(version)))))
    assert producer.flush(60) == 0


def test_the_example_records_its_steps_and_runs_what_the_fleet_runs(stack: Stack, tmp_path: Path) -> None:
    env_file = tmp_path / "stack.env"
    own = {"SOP_POLICIES__LEARNER_KEYS": f'["{KEY.public}"]'}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in (stack.environment() | own).items()))
    settings = load_settings(env_file)
    deploy(settings)
    publish(settings)
    environment = {**os.environ, "SOP_ENV_FILE": str(env_file)}
    command = [sys.executable, "-m", "examples.one_robot", str(tmp_path / "robot")]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=300)
    # The first boot waits a moment only; the second one finds its directory, and the policy in it.
    with RobotClient(settings, "arm-1", tmp_path / "robot") as client:
        assert client.follow("default").wait_for(lambda _: True, timeout=120.0) is not None
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=300)
    reader = LogReader(settings.kafka, "test-one-robot")
    schema_of = Registry(settings.registry).schema_of
    steps = [
        event_in(message.value(), Step, schema_of)
        for message in reader.read_to_end(all_partitions(reader, [ROBOT_STEPS]), 60)
        if message.key() == b"arm-1"
    ]
    reader.close()
    assert len(steps) == 2 * 2 * 60
    second = [step for step in steps if step.boot_epoch == max(step.boot_epoch for step in steps)]
    assert {step.policy_version for step in second} == {1}
    assert np.frombuffer(second[0].action, "<f4").tolist() == [0.5] * 7


@pytest.mark.usefixtures("nothing_set")
def test_off_line_it_ends_with_a_line_that_says_where_its_steps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOP_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("SOP_REGISTRY__URL", "http://127.0.0.1:1")
    monkeypatch.setattr("producers.robot.RobotClient", partial(RobotClient, close_timeout=0.1))
    monkeypatch.setattr(PolicyInbox, "wait_for", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["one_robot", "arm"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "examples" / "one_robot.py"), run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, before)
        for thread in threading.enumerate():  # its last request outlasts the client: it would log in another test
            if thread.name == "policy-inbox":
                thread.join(60)
    assert isinstance(ended.value.code, str), "printed on standard error, and exit code 1"
    assert re.fullmatch(
        r"error: 128 events were not acknowledged .* kept in arm/spool and sent .*", ended.value.code
    )
