"""What commands say: one line with an exit code when they cannot go on, and how `sop` is called from here."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console


def complain(error: object) -> None:
    """Say on standard error what is wrong."""
    console = Console(stderr=True)
    console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def fail(error: object, code: int = 1) -> NoReturn:
    """Say what is wrong, and end the command. Exit code 1: it failed; 2: it was used wrongly."""
    complain(error)
    raise typer.Exit(code)


def program() -> str:
    """How `sop` is called from here, for lines that are pasted: by its name if that is on the path."""
    ours = Path(sys.executable).with_name("sop")
    found = shutil.which("sop")
    if found and Path(found).samefile(ours):
        return "sop"
    return min(str(ours), os.path.relpath(ours), key=len)
