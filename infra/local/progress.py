"""What set-up shows while it works: one line per step, its elapsed time, and how far it has come."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# A log file (CI) gets a line this often; a terminal is rewritten in place every second.
_LOG_EVERY_SECONDS = 15.0


def say(text: str, *, error: bool = False) -> None:
    """Print one line, to standard error if it reports a fault."""
    print(f"setup: {text}", file=sys.stderr if error else sys.stdout, flush=True)


def size_of(path: Path) -> int:
    """Return the bytes of all files under `path`; 0 if there are none (files may vanish meanwhile)."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        try:
            total += file.lstat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total


@contextmanager
def step(name: str, grows: Path | None = None) -> Iterator[None]:
    """Report that `name` is under way, then how long it took and the size of `grows`, the path it fills."""
    started, done = time.monotonic(), threading.Event()

    def state() -> str:
        seconds = f"{time.monotonic() - started:.0f} s"
        size = size_of(grows) if grows else 0
        return f"{seconds}, {size / 1e6:.0f} MB" if size else seconds

    def tick() -> None:
        live = sys.stdout.isatty()
        while not done.wait(1.0 if live else _LOG_EVERY_SECONDS):
            if live:
                sys.stdout.write(f"\r\033[Ksetup: {name} … {state()}")
                sys.stdout.flush()
            else:
                say(f"{name} … {state()}")

    say(f"{name} …")
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        if sys.stdout.isatty():
            sys.stdout.write("\r\033[K")
    say(f"{name}: done, {state()}")


def run(command: list[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a quiet command without standard input; show its last 40 lines if it fails.

    Raises:
        subprocess.CalledProcessError: the command failed; its output was shown.
    """
    try:
        done = subprocess.run(  # noqa: PLW1510
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError as error:
        raise subprocess.CalledProcessError(127, command) from error
    if done.returncode:
        tail = done.stdout.decode(errors="replace").strip().splitlines()[-40:]
        print("\n".join(tail), file=sys.stderr)  # noqa: T201
        raise subprocess.CalledProcessError(done.returncode, command)
