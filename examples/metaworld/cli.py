"""`sop demo`, as the command line offers it."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import structlog
import typer
from pydantic import ValidationError
from rich.console import Console

from infra.settings import UnknownSettings, check_environment, explain
from infra.terminal import fail

# Tables in a file or a pipe, where no terminal says how wide it is.
_FILE_COLUMNS = 120


class _Interrupted(BaseException):
    """SIGINT or SIGTERM came; unwinds through everything that must be stopped."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 130 if number == signal.SIGINT else 1


def demo(
    *,
    robots: Annotated[int, typer.Option(min=1, max=64, help="Size of the fleet.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of layouts, disturbances and training.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Write the outcome to this file, as JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers and the data at the end.")] = False,
    data_dir: Annotated[
        Path, typer.Option(help="Where the servers keep everything.", envvar="SOP_DATA_DIR")
    ] = Path(".sop"),
    plot: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("artifacts/demo.png"),
    fleet: Annotated[str, typer.Option(help="Settings of the run as JSON, for tests.", hidden=True)] = "",
) -> None:
    """Show a simulated fleet getting better, on real servers, and account for every episode.

    SOP_ variables are checked and left aside: its servers have settings of their own.

    Exit codes:
    0 everything adds up
    1 something does not, or a server or a process failed
    2 wrong use: it cannot have its data directory or its files; a wrong setting
    130 after Ctrl-C; nothing is left running
    """
    try:
        # Late, so that `sop --help` does not wait for the simulator (1.2 s).
        from examples.metaworld.demo.crew import CrewFailed  # noqa: PLC0415
        from examples.metaworld.demo.home import DirectoryRefused  # noqa: PLC0415
        from examples.metaworld.demo.outputs import OutputRefused  # noqa: PLC0415
        from examples.metaworld.demo.run import Demo, DemoFailed, run_demo  # noqa: PLC0415
        from examples.metaworld.settings import FLEET, FleetSettings  # noqa: PLC0415
        from infra.clickhouse.client import ClickHouseError  # noqa: PLC0415
        from infra.errors import InfraError  # noqa: PLC0415
        from infra.local.stack import StackError  # noqa: PLC0415
        from infra.local.state import DirectoryInUseError  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        fail(f"{missing.name} is not installed; run `make setup`", code=2)

    try:
        check_environment()
    except ValidationError as wrong:
        fail(explain(wrong), code=2)
    except UnknownSettings as wrong:
        fail(wrong, code=2)
    # The view tells what matters; what a client library warns of while a worker restarts would tear it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    settings = FleetSettings.from_json(fleet) if fleet else FLEET
    console = Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = run_demo(Demo(robots, seed, data_dir, keep, report, plot, settings), console)
    except _Interrupted as interrupted:
        console.print(f"stopped; nothing is left running, data and logs stay in {data_dir}", highlight=False)
        code = interrupted.exit_code
    except (DirectoryRefused, DirectoryInUseError, OutputRefused) as refused:
        fail(refused, code=2)
    except (DemoFailed, CrewFailed, StackError, InfraError, ClickHouseError, OSError) as failed:
        fail(failed)
    raise typer.Exit(code)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # a second signal must not interrupt the cleaning up
    raise _Interrupted(number)


if __name__ == "__main__":
    typer.run(demo)
