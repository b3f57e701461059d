"""The process that owns a stack between `sop stack up` and `down`.  infra.local.control starts it."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from infra.local import state
from infra.local.stack import Stack


class _Stop(BaseException):
    """SIGTERM came, or `up` died before the stack was ready."""


def main(data_dir: str, lifeline: str, ready: str) -> int:
    """Start the stack, report to `up` through the pipe `ready`, keep watch until SIGTERM; return the exit code.

    `lifeline` is the read end of a pipe whose other end `up` holds: if it closes before `up` said that it knows
    the stack to be ready (one byte), `up` died, and the servers go as well.
    """
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may close
    acknowledged = threading.Event()
    threading.Thread(target=_watch, args=(int(lifeline), acknowledged), daemon=True).start()
    try:
        stack = Stack.start(Path(data_dir), owner=state.SUPERVISOR)
    except _Stop:
        return 1
    except Exception as error:  # noqa: BLE001 - `up` shows it, whatever it is
        _report(int(ready), {"error": f"{error}"})
        return 1
    try:
        _report(int(ready), {"error": ""})
        dead: set[str] = set()
        while True:
            ended = set(stack.observe())
            for name in sorted(ended - dead):
                print(f"{name} ended; `sop stack down` and `up` bring it back", file=sys.stderr, flush=True)  # noqa: T201
            dead = ended
            time.sleep(0.5)
    except _Stop:
        return 0
    finally:
        _deafen()
        stack.stop()


def _watch(lifeline: int, acknowledged: threading.Event) -> None:
    select.select([lifeline], [], [])
    if os.read(lifeline, 1) == b"":
        os.kill(os.getpid(), signal.SIGTERM)
    acknowledged.set()


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    _deafen()  # a second signal must not interrupt the cleaning up
    raise _Stop


def _deafen() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _report(ready: int, message: dict[str, str]) -> None:
    try:
        os.write(ready, json.dumps(message).encode() + b"\n")
        os.close(ready)
    except BrokenPipeError:
        pass  # `up` is gone; the lifeline says so too


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
