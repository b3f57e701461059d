"""`sop stack`: the servers on this machine.  Also python -m infra.local.cli"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.local import control, state
from infra.local.ports import NoFreePortError
from infra.local.stack import StackError
from infra.terminal import fail

app = typer.Typer(
    name="stack",
    help="Kafka, S3, ClickHouse and a schema registry on this machine, without containers.",
    no_args_is_help=True,
)

DataDir = Annotated[
    Path, typer.Option("--data-dir", help="Where the servers keep everything.", envvar="SOP_DATA_DIR")
]
_DEFAULT = Path(".sop")


@app.command()
def up(data_dir: DataDir = _DEFAULT) -> None:
    """Start the servers, or say that they run. Exit code 0 when all are healthy, 1 otherwise."""
    started = time.monotonic()
    try:
        control.up(data_dir)
        headline = f"ready after {time.monotonic() - started:.1f} s"
    except state.DirectoryInUseError:
        control.wait_while_starting(data_dir)
        headline = "already running"
    except control.ForeignDirectoryError as error:
        fail(error, code=2)
    except (StackError, NoFreePortError, OSError) as error:
        fail(error)
    services = control.status(data_dir)
    _show(services, headline, data_dir)
    if not _all_healthy(services):
        raise typer.Exit(1)


@app.command()
def down(
    data_dir: DataDir = _DEFAULT,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the data directory as well.")] = False,
) -> None:
    """Stop the servers; no process is left. The data stay, unless --purge is given.

    Exit code 0 as well when none ran.
    """
    there = data_dir.exists()
    try:
        ran = control.down(data_dir, purge=purge)
    except (StackError, state.DirectoryInUseError, OSError) as error:
        fail(error)
    what = "stopped" if ran else "nothing was running"
    then = ("removed" if purge else "kept") if there else "is not there"
    Console().print(f"{what}; {data_dir} {then}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def status(
    data_dir: DataDir = _DEFAULT, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show address, pid, health and version of each server. Exit code 0 when all are healthy, 1 otherwise."""
    services = control.status(data_dir)
    healthy = _all_healthy(services)
    if as_json:
        found = {
            "data_dir": str(data_dir.absolute()),
            "healthy": healthy,
            "services": [asdict(s) for s in services],
        }
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(services, "", data_dir)
    if not healthy:
        raise typer.Exit(1)


@app.command()
def env(data_dir: DataDir = _DEFAULT) -> None:
    """Print the settings that reach the servers, secrets too: eval "$(sop stack env)"."""
    try:
        found = control.environment(data_dir)
    except (StackError, OSError) as error:
        fail(error)
    for name, value in found.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _all_healthy(services: list[control.ServiceStatus]) -> bool:
    return all(service.health == control.HEALTHY for service in services)


def _show(services: list[control.ServiceStatus], headline: str, data_dir: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("service", "address", "pid", "health", "version"):
        table.add_column(column, no_wrap=True)
    for service in services:
        colour = "green" if service.health == control.HEALTHY else "red"
        health = f"[{colour}]{service.health}[/{colour}]"
        table.add_row(service.service, service.address, str(service.pid or "-"), health, service.version or "-")
    console = Console()
    where = str(data_dir.absolute())
    console.print(f"{where}: {headline}" if headline else where, markup=False, highlight=False, soft_wrap=True)
    # A narrow terminal wraps the line, but no address is cut short.
    console.print(table, width=max(console.width, 110), soft_wrap=True)
    for service in services:
        if service.detail:
            console.print(f"{service.service}: {service.detail}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()
