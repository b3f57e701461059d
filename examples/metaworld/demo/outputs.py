"""The files that the demo writes at its end, looked at before it begins: three minutes later is too late."""

from __future__ import annotations

import tempfile
from pathlib import Path


class OutputRefused(Exception):
    """A file that was asked for cannot be written; the text says which, and why."""


def check(option: str, path: Path, data_dir: Path) -> None:
    """See that `path` can be written; its folder is made.

    Raises:
        OutputRefused: it cannot, or it lies in the data directory, which demos remove.
    """
    where = path.absolute()
    if where.resolve().is_relative_to(data_dir.resolve()):
        raise OutputRefused(
            f"{option} {path} lies in the data directory, which demos remove; choose another place"
        )
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        if where.exists():
            where.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=where.parent).close()
    except OSError as error:
        raise OutputRefused(f"{option} {path} cannot be written: {error.strerror or error}") from error
