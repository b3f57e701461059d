"""One simulated robot as a process of its own; it talks to the servers and to nobody else.

    python -m examples.metaworld.robot --robot-id robot-1 --data-dir .sop/robots/robot-1 --robots 1 --seed 1

Settings come from the environment, as for every process. Its ledger is `ledger.jsonl` in its directory.
Exit code 0 when everything was done and acknowledged; 1 otherwise, with the reason in the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import structlog
import typer

from examples.metaworld import ledger as entries
from examples.metaworld.ledger import Ledger
from examples.metaworld.phases import Berth, NoPolicy, Phase, SimulatedRobot, Stopped
from examples.metaworld.play import FEATURES
from examples.metaworld.settings import FLEET, FleetSettings
from infra.clock import SystemClock
from infra.errors import InfraError
from infra.lifecycle import stop_on_signals
from infra.settings import load_settings
from infra.telemetry import configure_logging
from producers.errors import RobotClientError
from producers.policy_fit import RobotKind
from producers.robot import RobotClient
from schemas.errors import SchemaError

LEDGER_FILE = "ledger.jsonl"

_log = structlog.get_logger(__name__)


def main(
    *,
    robot_id: Annotated[str, typer.Option(help="Name of the robot.")],
    data_dir: Annotated[Path, typer.Option(help="The robot's own directory.")],
    index: Annotated[int, typer.Option(min=0, help="Its place in the fleet, from 0.")] = 0,
    robots: Annotated[int, typer.Option(min=1, help="Size of the fleet.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the whole run.")] = 1,
    phase: Annotated[list[Phase] | None, typer.Option(help="Parts of the work, in order; by default all.")] = None,
    fleet: Annotated[str, typer.Option(help="Settings of the run as JSON; by default the demo's.")] = "",
) -> None:
    """Play the phases in order, then wait until Kafka has acknowledged everything."""
    if index >= robots:
        raise typer.BadParameter(f"index {index} is not below the size of the fleet, {robots}")
    configure_logging(robot_id)
    settings = FleetSettings.from_json(fleet) if fleet else FLEET
    stop, clock = stop_on_signals(), SystemClock()
    try:
        with Ledger(data_dir / LEDGER_FILE) as ledger:
            with RobotClient(load_settings(), robot_id, data_dir) as client:
                phases = phase or list(Phase)
                if Phase.ONLINE in phases:  # so that the learner knows of it before anyone waits
                    client.heartbeat(simulated_seconds=0.0)
                opened = entries.Opened(at=clock.now(), robot_id=robot_id, boot_epoch=client.boot_epoch)
                ledger.write(opened)
                inbox = client.follow(settings.policy, kind=RobotKind(FEATURES, fps=1.0 / settings.step_seconds))
                robot = SimulatedRobot(
                    settings,
                    Berth(index, robots, seed),
                    client=client,
                    inbox=inbox,
                    ledger=ledger,
                    clock=clock,
                    stop=stop,
                )
                for part in phases:
                    robot.run(part)
            ledger.write(entries.Closed(at=clock.now()))
    except Stopped:
        _log.info("robot_stopped")
        raise typer.Exit(1) from None
    except (InfraError, NoPolicy, RobotClientError, SchemaError) as error:
        _log.error("robot_failed", error=f"{type(error).__name__}: {error}")
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
