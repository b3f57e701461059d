"""A process of its own that plays the fixed set with published versions, and records it as any robot does.

    python -m benchmarks.paper.judge --robot-id judge --data-dir DIR --fleet JSON --versions 4,7,10

Versions are fetched by their announcements, and their sha256 is compared. Settings come from the environment.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import structlog

from examples.metaworld import ledger as entries
from examples.metaworld.ledger import Ledger
from examples.metaworld.phases import Berth, SimulatedRobot, Stopped
from examples.metaworld.play import FEATURES
from examples.metaworld.robot import LEDGER_FILE
from examples.metaworld.settings import FleetSettings
from infra.clock import SystemClock
from infra.errors import InfraError
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.lifecycle import stop_on_signals
from infra.object_store import ObjectStore, sha256_hex
from infra.settings import Settings, load_settings
from infra.telemetry import configure_logging
from producers.errors import RobotClientError
from producers.policy_fit import RobotKind
from producers.policy_store import PolicyFile, verify
from producers.robot import RobotClient
from schemas.codec import decode, unframe
from schemas.errors import SchemaError
from schemas.events import PolicyVersion
from schemas.topics import POLICY_VERSIONS

_READ_SECONDS = 60.0

_log = structlog.get_logger(__name__)


def announced(settings: Settings, policy: str) -> dict[int, PolicyVersion]:
    """Versions of a line, by number.

    Raises:
        InfraError, SchemaError: the topic cannot be read.
    """
    found = {}
    reader = LogReader(settings.kafka, "paper-judge")
    try:
        for message in reader.read_to_end(all_partitions(reader, [POLICY_VERSIONS]), _READ_SECONDS):
            event = decode(PolicyVersion, unframe(message.value())[1])
            if event.policy == policy:
                found[event.version] = event
    finally:
        reader.close()
    return found


def main() -> int:
    """Play; 0 once Kafka has acknowledged everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.judge")
    parser.add_argument("--robot-id", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--fleet", type=FleetSettings.from_json, required=True)
    parser.add_argument("--versions", required=True, help="numbers, with commas")
    options = parser.parse_args()
    configure_logging(options.robot_id)
    stop, clock, settings, fleet = stop_on_signals(), SystemClock(), load_settings(), options.fleet
    try:
        versions, store = announced(settings, fleet.policy), ObjectStore(settings.s3)
        with Ledger(options.data_dir / LEDGER_FILE) as ledger:
            with RobotClient(settings, options.robot_id, options.data_dir) as client:
                ledger.write(
                    entries.Opened(at=clock.now(), robot_id=options.robot_id, boot_epoch=client.boot_epoch)
                )
                inbox = client.follow(fleet.policy, kind=RobotKind(FEATURES, fps=1.0 / fleet.step_seconds))
                robot = SimulatedRobot(
                    fleet, Berth(0, 1, 0), client=client, inbox=inbox, ledger=ledger, clock=clock, stop=stop
                )
                for number in map(int, options.versions.split(",")):
                    version = versions[number]
                    data = store.get(store.key(version.artifact_uri))
                    verify(version, len(data), sha256_hex(data))
                    path = options.data_dir / f"{number}.safetensors"
                    path.write_bytes(data)
                    robot.judge(PolicyFile(version, path))
            ledger.write(entries.Closed(at=clock.now()))
    except Stopped:
        return 1
    except (InfraError, RobotClientError, SchemaError, KeyError) as error:
        _log.error("judge_failed", error=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
