"""The demo's data directory: claimed only if it is new or was a demo's, so that nobody's data is removed."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from infra.local import state
from infra.terminal import program

MARK = "demo.json"
_STACK = "stack.json"
_LOCK = "lock"  # held by whoever owns the directory; made by merely asking


class DirectoryRefused(Exception):
    """The data directory is somebody's; the text says what to do."""


def claim(data_dir: Path) -> None:
    """Make the directory the demo's, empty; what an earlier demo left in it is removed.

    Raises:
        DirectoryRefused: it is no directory that we may write, a stack runs there, or it holds data that no demo
            made.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {path.name for path in data_dir.iterdir()} - {_LOCK}
    except OSError as error:
        raise DirectoryRefused(
            f"{data_dir} cannot be the data directory: {error.strerror}; give the demo another --data-dir"
        ) from error
    # Asking whether one runs makes a lock file; a stranger's directory is not touched even so.
    if content & {MARK, _STACK} and state.is_running(data_dir):
        raise DirectoryRefused(_running(data_dir, ours=MARK in content))
    if content and MARK not in content:
        raise DirectoryRefused(
            f"{data_dir} holds data that no demo made ({', '.join(sorted(content)[:4])}, …); give the demo "
            f"another --data-dir"
            + (f", or remove that one (`{_down(data_dir)} --purge`)" if _STACK in content else "")
        )
    try:
        with state.DirectoryLock.take(data_dir):
            state.clear_leftovers(data_dir)
            _empty(data_dir)
            (data_dir / MARK).write_text(json.dumps({"made_by": "sop demo"}) + "\n")
    except state.DirectoryInUseError as error:
        raise DirectoryRefused(f"{error}; is another demo starting there?") from error


def _running(data_dir: Path, *, ours: bool) -> str:
    record = state.read(data_dir)
    if record is not None and record.owner == state.EMBEDDED:
        return (
            f"process {record.owner_pid} uses {data_dir} (another demo?); wait until it has ended, or give this "
            f"demo another --data-dir"
        )
    # A demo's data make room for the next demo's by themselves; others must be given up by name.
    purge = "" if ours else " --purge"
    what = "stop it" if ours else "stop it and remove its data"
    return f"a stack runs on {data_dir}; {what} (`{_down(data_dir)}{purge}`), or give the demo another --data-dir"


def _down(data_dir: Path) -> str:
    return f"{program()} stack down --data-dir {shlex.quote(str(data_dir))}"


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
