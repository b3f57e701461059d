"""Start, stop and look at a stack that lives in a supervisor of its own: what `sop stack` does."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.local import state
from infra.local.catalog import SERVER_NAMES, all_servers
from infra.local.credentials import load
from infra.local.environment import keep, variables
from infra.local.server import NotReadyError, Server, Site
from infra.local.stack import StackError

HEALTHY, UNRESPONSIVE = "healthy", "unresponsive"

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ServiceStatus:
    """One line of `sop stack status`; `detail` says what is wrong."""

    service: str
    address: str
    pid: int | None
    health: str
    version: str
    detail: str = ""


class ForeignDirectoryError(Exception):
    """The data directory holds what no stack made; `down --purge` would remove it."""


_MARKS = {"stack.json", "demo.json", "ports.json"}


def _strangers(data_dir: Path) -> list[str]:
    """What lies in a directory that no stack ever used; nothing if one did, or if it is empty or not there."""
    names = {path.name for path in data_dir.iterdir()} if data_dir.exists() else set()
    return [] if names & _MARKS else sorted(names - {"lock", "logs", "secrets"})


def up(data_dir: Path, *, timeout: float = 120.0) -> None:
    """Start a stack in a supervisor that outlives this process; return when it is ready.

    Until then a pipe ties the supervisor to this process: if this one is killed, everything is stopped.

    Raises:
        ForeignDirectoryError: the directory holds what no stack made, or is none.
        state.DirectoryInUseError: one runs there.
        StackError: it did not start; nothing is left running.
    """
    data_dir = data_dir.absolute()
    if data_dir.exists() and not data_dir.is_dir():
        raise ForeignDirectoryError(f"{data_dir} is no directory; choose another --data-dir")
    strangers = _strangers(data_dir)
    if strangers:
        named = ", ".join(strangers[:3])
        raise ForeignDirectoryError(f"{data_dir} holds files that no stack made ({named}, ...); choose another")
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if state.is_running(data_dir):
        raise state.DirectoryInUseError(f"a stack runs on {data_dir}")
    (data_dir / "logs").mkdir(exist_ok=True)
    lifeline, tie = os.pipe()
    answer, ready = os.pipe()
    with (data_dir / "logs" / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "infra.local.supervisor", str(data_dir), str(lifeline), str(ready)],
            cwd=data_dir,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            pass_fds=(lifeline, ready),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(lifeline)
    os.close(ready)
    acknowledged = False
    try:
        error = _answer(answer, timeout)
        if error:
            raise StackError(error)
        os.write(tie, b".")
        acknowledged = True
    finally:
        os.close(tie)
        os.close(answer)
        if not acknowledged:
            with suppress(subprocess.TimeoutExpired):
                supervisor.wait(timeout=60)  # it stops what it started


def down(data_dir: Path, *, purge: bool = False, timeout: float = 60.0) -> bool:
    """Stop the stack; return whether one ran. With `purge` its data directory is removed.

    Raises:
        StackError: it does not stop, or belongs to a program other than `sop stack up`.
    """
    data_dir = data_dir.absolute()
    ran = data_dir.is_dir() and state.is_running(data_dir)
    if ran:
        _stop_owner(data_dir, timeout)
    if purge and data_dir.exists():
        if not (data_dir / "stack.json").exists():
            raise StackError(f"{data_dir} is not a stack's data directory (no stack.json); remove it yourself")
        with state.DirectoryLock.take(data_dir):
            shutil.rmtree(data_dir)
    return ran


def status(data_dir: Path, *, timeout: float = 5.0) -> list[ServiceStatus]:
    """Return the state of each server, all probed at once, each for at most `timeout` seconds."""
    data_dir = data_dir.absolute()
    record = state.read(data_dir)
    running = data_dir.is_dir() and state.is_running(data_dir)
    if record is None or not running:
        addresses = {name: entry.address for name, entry in record.servers.items()} if record else {}
        return [ServiceStatus(name, addresses.get(name, ""), None, state.STOPPED, "") for name in SERVER_NAMES]
    site = _site(data_dir)
    servers = [server for server in all_servers() if server.name in record.servers]
    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(lambda server: _look(server, record.servers[server.name], site, timeout), servers))


def environment(data_dir: Path) -> dict[str, str]:
    """Return the settings with which processes reach the stack.

    Raises:
        StackError: none runs on the data directory.
    """
    return variables(_running_site(data_dir))


def keep_settings(data_dir: Path, own: Mapping[str, str]) -> None:
    """Have these settings among those of the stack, as long as its data last.

    Raises:
        StackError: none runs on the data directory.
    """
    keep(_running_site(data_dir), own)


def _running_site(data_dir: Path) -> Site:
    data_dir = data_dir.absolute()
    if not (data_dir.is_dir() and state.is_running(data_dir)):
        raise StackError(f"no stack runs on {data_dir}; start one with `sop stack up --data-dir {data_dir}`")
    return _site(data_dir)


def wait_while_starting(data_dir: Path, *, timeout: float = 120.0) -> None:
    """Wait until another `up` on the directory is done, at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while state.is_running(data_dir) and time.monotonic() < deadline:
        record = state.read(data_dir)
        if record and record.state == state.RUNNING:
            return
        time.sleep(0.1)


def _answer(pipe: int, timeout: float) -> str:
    readable, _, _ = select.select([pipe], [], [], timeout)
    line = os.read(pipe, 1 << 16) if readable else b""
    if not readable:
        return f"the stack was not ready within {timeout:.0f} s"
    if not line:
        return "the supervisor ended; see logs/supervisor.log in the data directory"
    return str(json.loads(line)["error"])


def _stop_owner(data_dir: Path, timeout: float) -> None:
    record = state.read(data_dir)
    if record is None:
        raise StackError(f"something holds {data_dir / 'lock'}, and stack.json does not say what")
    if record.owner != state.SUPERVISOR:
        raise StackError(f"the stack on {data_dir} belongs to process {record.owner_pid}; end that one")
    try:
        owner = os.pidfd_open(record.owner_pid)
    except ProcessLookupError:
        return
    try:
        # The lock is still held: its holder is the one in stack.json, and the descriptor cannot change its mind.
        if not state.is_running(data_dir):
            return
        signal.pidfd_send_signal(owner, signal.SIGTERM)
        if not select.select([owner], [], [], timeout)[0]:
            signal.pidfd_send_signal(owner, signal.SIGKILL)  # takes its servers along
            select.select([owner], [], [], 10)
    except ProcessLookupError:
        pass
    finally:
        os.close(owner)
    state.clear_leftovers(data_dir)
    if state.is_running(data_dir):
        raise StackError(f"the stack on {data_dir} does not stop; its supervisor is process {record.owner_pid}")


def _site(data_dir: Path) -> Site:
    ports = json.loads((data_dir / "ports.json").read_text())
    return Site(data_dir, ports, load(data_dir / "secrets"))


def _look(server: Server, entry: state.ServerRecord, site: Site, timeout: float) -> ServiceStatus:
    if not entry.pid:
        return ServiceStatus(server.name, entry.address, None, state.STARTING, "")
    if state.start_time(entry.pid) != entry.started:
        detail = f"ended; see logs/{server.name}.log, then `sop stack down` and `up`"
        return ServiceStatus(server.name, entry.address, None, state.DEAD, entry.version, detail)
    try:
        version = server.probe(site, timeout=timeout)
    except NotReadyError as error:
        return ServiceStatus(server.name, entry.address, entry.pid, UNRESPONSIVE, entry.version, str(error))
    return ServiceStatus(server.name, entry.address, entry.pid, HEALTHY, version)
