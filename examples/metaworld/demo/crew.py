"""The demo's processes: workers, which are started again when they die, and robots, which must not die."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

import structlog

from infra.clock import Clock
from infra.local import process

WORKERS = ("materialize", "index", "learn")
"""Sub-commands of `sop` that carry the pipeline."""

_ROOT = Path(__file__).resolve().parents[3]
# A worker that cannot live: so many deaths within so many seconds.
_DEATHS, _WITHIN_SECONDS = 5, 120.0
_LOG_LINES = 15

_log = structlog.get_logger(__name__)


class CrewFailed(Exception):
    """A process ended that should not have; the text holds the end of its log."""


@dataclass
class Member:
    """One process: how it is called, how it is started, and when it died so far (monotonic seconds)."""

    name: str
    command: list[str]
    running: Popen[bytes]
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_DEATHS))

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        return self.running.pid


class Crew:
    """Starts processes that cannot outlive this one, however it ends."""

    def __init__(self, env_file: Path, logs: Path, clock: Clock) -> None:
        logs.mkdir(exist_ok=True)
        self._env_file = env_file
        self._logs = logs
        self._clock = clock
        self.workers: dict[str, Member] = {}
        self.robots: dict[str, Member] = {}

    def start_worker(self, name: str) -> None:
        """Start `sop <name>`."""
        command = [str(Path(sys.executable).with_name("sop")), name]
        self.workers[name] = Member(name, command, self._spawn(name, command))

    def start_robot(
        self, robot_id: str, arguments: Sequence[str], module: str = "examples.metaworld.robot"
    ) -> None:
        """Start one simulated robot, or another program that plays."""
        command = [sys.executable, "-m", module, "--robot-id", robot_id, *arguments]
        self.robots[robot_id] = Member(robot_id, command, self._spawn(robot_id, command))

    def start_command(self, name: str, arguments: Sequence[str]) -> None:
        """Start `sop <name>` with arguments, which ends by itself and, as a robot, must not fail."""
        command = [str(Path(sys.executable).with_name("sop")), name, *arguments]
        self.robots[name] = Member(name, command, self._spawn(name, command))

    def stop_worker(self, name: str, patience: float = 10.0) -> None:
        """End a worker for good."""
        process.stop([self.workers.pop(name).running], patience=patience)

    def mend(self) -> list[str]:
        """Start again every worker that has died; their names.

        Raises:
            CrewFailed: a robot failed, or a worker dies again and again.
        """
        for robot in self.robots.values():
            if robot.running.poll() not in (None, 0):
                raise CrewFailed(self._obituary(robot))
        mended = []
        for worker in self.workers.values():
            if worker.running.poll() is None:
                continue
            now = self._clock.monotonic()
            if len(worker.deaths) == _DEATHS and now - worker.deaths[0] < _WITHIN_SECONDS:
                raise CrewFailed(f"{self._obituary(worker)}\n(it was started again {_DEATHS} times)")
            worker.deaths.append(now)
            _log.warning("worker_started_again", worker=worker.name, returncode=worker.running.returncode)
            worker.running = self._spawn(worker.name, worker.command)
            mended.append(worker.name)
        return mended

    def robots_done(self) -> bool:
        """Whether every robot has ended well."""
        return all(robot.running.poll() == 0 for robot in self.robots.values())

    def stop(self, patience: float = 10.0) -> None:
        """End all processes: robots first, so that workers still hear their last words."""
        for members in (self.robots, self.workers):
            process.stop([member.running for member in members.values()], patience=patience)
            members.clear()

    def _spawn(self, name: str, command: list[str]) -> Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SOP_")}
        environment |= {
            "SOP_ENV_FILE": str(self._env_file),
            # Two threads on shared cores make a gradient step ten times slower than one.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        return process.spawn(command, environment=environment, log=self._log_file(name), cwd=_ROOT)

    def _log_file(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _obituary(self, member: Member) -> str:
        log = self._log_file(member.name)
        tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
        return "\n".join([f"{member.name} ended with {member.running.returncode}; its log, {log}, ends:", *tail])
