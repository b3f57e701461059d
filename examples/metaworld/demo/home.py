"""The demo's data directory: claimed only if it is new or was a demo's, so that nobody's data is removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from infra.local import state

MARK = "demo.json"
_LOCK = "lock"  # held by whoever owns the directory; made by merely asking


class DirectoryRefused(Exception):
    """The data directory is somebody's; the text says what to do."""


def claim(data_dir: Path) -> None:
    """Make the directory the demo's, empty; what an earlier demo left in it is removed.

    Raises:
        DirectoryRefused: a stack runs there, or it holds data that no demo made.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {path.name for path in data_dir.iterdir()} - {_LOCK}
    # Asking whether one runs makes a lock file; a stranger's directory is not touched even so.
    if content & {MARK, "stack.json"} and state.is_running(data_dir):
        raise DirectoryRefused(
            f"a stack runs on {data_dir}; stop it with `sop stack down --data-dir {data_dir}`, or give the demo "
            f"another --data-dir"
        )
    if content and MARK not in content:
        raise DirectoryRefused(
            f"{data_dir} holds data that no demo made ({', '.join(sorted(content)[:4])}, …); give the demo "
            f"another --data-dir, or remove that one (`sop stack down --purge --data-dir {data_dir}`)"
        )
    try:
        with state.DirectoryLock.take(data_dir):
            state.clear_leftovers(data_dir)
            _empty(data_dir)
            (data_dir / MARK).write_text(json.dumps({"made_by": "sop demo"}) + "\n")
    except state.DirectoryInUseError as error:
        raise DirectoryRefused(f"{error}; is another demo starting there?") from error


def remove(data_dir: Path) -> None:
    """Remove a demo's directory; nothing happens to one that is not marked as a demo's."""
    if (data_dir / MARK).exists():
        shutil.rmtree(data_dir)


def _empty(data_dir: Path) -> None:
    # The mark goes last: a purge that is cut off leaves a directory that is still a demo's.
    for path in sorted(data_dir.iterdir(), key=lambda path: path.name == MARK):
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
