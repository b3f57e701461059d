"""What commands share: their settings, and one line with an exit code when they cannot go on."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from infra.settings import Settings, UnknownSettings, env_file, explain, load_settings


def complain(error: object) -> None:
    """Say on standard error what is wrong."""
    console = Console(stderr=True)
    console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def fail(error: object, code: int = 1) -> NoReturn:
    """Say what is wrong, and end the command. Exit code 1: it failed; 2: it was used wrongly."""
    complain(error)
    raise typer.Exit(code)


def settings() -> Settings:
    """The settings; wrong ones end the command."""
    try:
        return load_settings()
    except ValidationError as error:
        fail(explain(error), code=2)
    except UnknownSettings as error:
        fail(str(error), code=2)


def no_settings() -> str:
    """What to say where there are none at all."""
    return (
        f"there are no settings, neither in the environment nor in {env_file()}: start the servers (`sop stack "
        "up`), or say where they are (SOP_CLICKHOUSE__HOST, SOP_CLICKHOUSE__ANALYST_USERNAME, "
        "SOP_KAFKA__BOOTSTRAP_SERVERS, SOP_S3__ENDPOINT_URL, SOP_REGISTRY__URL, ...)"
    )


def program() -> str:
    """How `sop` is called from here, for lines that are pasted: by its name if that is on the path."""
    ours = Path(sys.executable).with_name("sop")
    found = shutil.which("sop")
    if found and Path(found).samefile(ours):
        return "sop"
    return min(str(ours), os.path.relpath(ours), key=len)
