"""The stack: real servers on loopback under one data directory, owned by the process that started them.

    with Stack.start(Path(".sop")) as stack:      # in a test; `sop stack up` keeps one in a process of its own
        stack.environment()["SOP_KAFKA__BOOTSTRAP_SERVERS"]
        stack.kill("broker"); stack.restart("broker")   # same address, same data

The servers die with their owner, however it ends (see leash.py).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from subprocess import Popen
from types import TracebackType

from infra.local import process, state
from infra.local.catalog import SERVER_NAMES, all_servers, missing_artifacts
from infra.local.credentials import load
from infra.local.environment import variables, write_files
from infra.local.ports import Ports
from infra.local.server import NotReadyError, Server, Site
from infra.local.toolcheck import java_version

# The broker takes 0.3 s when idle and the registry 0.5 s; the gateway waits for running queries.
_STOP_PATIENCE_SECONDS = 15.0


class StackError(Exception):
    """The stack could not do what was asked; the message says why and what to do next."""


class Stack:
    """Running servers. Made by `start`; use as a context manager, or call `stop`. Methods are thread-safe."""

    def __init__(
        self, site: Site, lock: state.DirectoryLock, ports: Ports, servers: Sequence[Server], owner: str
    ) -> None:
        self.data_dir = site.data_dir
        self._site, self._lock, self._ports = site, lock, ports
        self._servers = {server.name: server for server in servers}
        self._processes: dict[str, Popen[bytes]] = {}
        self._record = state.Record.starting(owner, {name: s.address(site) for name, s in self._servers.items()})
        self._guard, self._record_guard = threading.RLock(), threading.Lock()
        self._stopping = threading.Event()

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        only: Sequence[str] = SERVER_NAMES,
        timeout: float = 90.0,
        owner: str = state.EMBEDDED,
    ) -> Stack:
        """Start the servers named in `only` in parallel; return when all of them answer.

        A data directory used before gives the same data, secrets and, while they are free, the same ports.

        Raises:
            state.DirectoryInUseError: a stack runs on this data directory.
            StackError: set-up is missing, or a server did not answer within `timeout` seconds. None is left.
        """
        servers = [server for server in all_servers(java_version()) if server.name in only]
        if missing := missing_artifacts(servers):
            raise StackError(f"{', '.join(missing)} not built yet; run `make setup`")
        data_dir = data_dir.absolute()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with state.DirectoryLock.take(data_dir) as lock:
            state.clear_leftovers(data_dir)
            with Ports(
                data_dir / "ports.json", [port for server in servers for port in server.port_names]
            ) as ports:
                stack = cls(Site(data_dir, ports.numbers, load(data_dir / "secrets")), lock, ports, servers, owner)
                try:
                    stack._start_all(timeout)
                except BaseException as error:
                    stack.stop(because=str(error))
                    raise
                lock.keep()
                ports.keep()
        return stack

    def environment(self) -> dict[str, str]:
        """Return the settings (`SOP_…`) with which every process reaches these servers; secrets among them."""
        return variables(self._site)

    def address(self, name: str) -> str:
        """Return the address of a server as clients use it."""
        return self._servers[name].address(self._site)

    def pid(self, name: str) -> int:
        """Return the process id of a server's last start."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """End a server with SIGKILL, as a crash would; return when it is gone."""
        with self._guard:
            process.kill(self._processes[name])
            self._note(name, state.DEAD)

    def restart(self, name: str, *, timeout: float = 90.0) -> None:
        """Stop a server if it runs, start it again at the same address on the same data; return when it answers.

        Raises:
            StackError: it did not answer within `timeout` seconds.
        """
        with self._guard:
            process.stop([self._processes[name]], patience=_STOP_PATIENCE_SECONDS)
            self._start_one(self._servers[name], time.monotonic() + timeout)

    def pause(self, name: str) -> None:
        """Freeze a server (SIGSTOP): its connections stay open and nothing answers."""
        with self._guard:
            process.freeze(self._processes[name])

    def resume(self, name: str) -> None:
        """Let a paused server go on."""
        with self._guard:
            process.thaw(self._processes[name])

    def observe(self) -> list[str]:
        """Return the servers that ended although nobody asked them to, and note that in stack.json."""
        with self._guard:
            ended = [name for name, server in self._processes.items() if server.poll() is not None]
            for name in ended:
                if self._record.servers[name].state != state.DEAD:
                    self._note(name, state.DEAD)
            return ended

    def stop(self, *, because: str = "") -> None:
        """Stop all servers and give up the data directory; the data stay. Does nothing the second time."""
        self._stopping.set()
        with self._guard:
            # The registry, the gateway and the object store do not need the broker to end, nor it them.
            process.stop(list(self._processes.values()), patience=_STOP_PATIENCE_SECONDS)
            for name in self._processes:
                self._record.servers[name].state = state.STOPPED
            self._processes.clear()
            if self._lock.held:
                self._record.state, self._record.error = state.STOPPED, because
                state.write(self.data_dir, self._record)
            self._ports.close()
            self._lock.close()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_all(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        state.write(self.data_dir, self._record)
        (self.data_dir / "logs").mkdir(exist_ok=True)
        for server in self._servers.values():
            log = self._log(server)
            if log.exists():
                log.replace(log.with_suffix(".log.1"))
        with ThreadPoolExecutor(len(self._servers), thread_name_prefix="start") as pool:
            starts = [pool.submit(self._start_one, server, deadline) for server in self._servers.values()]
            try:
                done, _ = wait(starts, return_when=FIRST_EXCEPTION)
                for start in done:
                    start.result()
            except BaseException:
                self._stopping.set()  # ends the other waits
                raise
        write_files(self._site)
        self._record.state = state.RUNNING
        state.write(self.data_dir, self._record)

    def _start_one(self, server: Server, deadline: float) -> None:
        self._site.directory(server.name).mkdir(mode=0o700, exist_ok=True)
        preparation = server.prepare(self._site)
        if preparation:
            prepared = self._spawn(server, preparation)
            self._until(lambda: prepared.poll() is not None, server, deadline, "did not finish its preparation")
            if prepared.returncode:
                raise StackError(self._failure(server, f"failed to prepare (exit code {prepared.returncode})"))
        running = self._spawn(server, server.command(self._site))

        def answers() -> bool:
            if running.poll() is not None:
                raise StackError(self._failure(server, f"ended at start (exit code {running.returncode})"))
            try:
                self._record.servers[server.name].version = server.probe(self._site, timeout=5.0)
            except NotReadyError:
                return False
            return True

        self._until(answers, server, deadline, "did not answer in time")
        self._note(server.name, state.RUNNING)

    def _spawn(self, server: Server, command: list[str]) -> Popen[bytes]:
        home = self._site.directory(server.name)
        settings = {**_inherited(), **server.environment(self._site)}
        started = process.spawn(command, environment=settings, log=self._log(server), cwd=home)
        self._processes[server.name] = started
        return started

    def _until(self, condition: Callable[[], bool], server: Server, deadline: float, fault: str) -> None:
        while not condition():
            if self._stopping.wait(0.05):
                raise StackError(f"{server.name}: the stack is stopping")
            if time.monotonic() > deadline:
                raise StackError(self._failure(server, fault))

    def _note(self, name: str, new_state: str) -> None:
        with self._record_guard:
            entry = self._record.servers[name]
            entry.state, entry.pid = new_state, self._processes[name].pid
            entry.started = state.start_time(entry.pid) or ""
            state.write(self.data_dir, self._record)

    def _failure(self, server: Server, fault: str) -> str:
        log = self._log(server)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
        return f"{server.name} {fault}; its log, {log}, ends:\n{tail}"

    def _log(self, server: Server) -> Path:
        return self.data_dir / "logs" / f"{server.name}.log"


def _inherited() -> dict[str, str]:
    """Return what servers get of the caller's variables: no secrets, no settings meant for other programs."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "JAVA_HOME", "XDG_CACHE_HOME")
    return {name: os.environ[name] for name in names if name in os.environ}
