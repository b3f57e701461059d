"""OS processes under test: started with a plan, watched, replaced when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.local import process as local
from tests.chaos.schedule import MemberPlan

ROOT = Path(__file__).parents[2]
LEASH = ROOT / "infra" / "local" / "leash.py"
LITTLE_MEMORY = 16_384
"""Bytes for open episodes where they are to spill."""
SETTLE = 10.0
"""Seconds for a member to leave before it is taken for one that froze itself just then."""
MARK = "chaos-mark "
"""Begins the lines by which a member says what it is about to do to itself."""


@dataclass
class Process:
    """One process, its log, and what it was told."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    plan: MemberPlan = field(default_factory=MemberPlan)
    killed: bool = False
    frozen_since: float | None = None
    thawed: bool = False

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    @property
    def frozen_for(self) -> float:
        """Seconds since it was seen to be frozen."""
        return time.monotonic() - self.frozen_since if self.frozen_since is not None else 0.0

    def marks(self) -> list[str]:
        """What it said about itself: `died at ...`, `frozen at ...`."""
        text = self.log.read_text(errors="replace")
        return [line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK)]

    @property
    def last_words_ms(self) -> float:
        """When it last wrote into its log, milliseconds since the epoch."""
        return self.log.stat().st_mtime * 1000

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            self.popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, wherever it is."""
        self.killed = True
        self.send(signal.SIGKILL)
        self.popen.wait(30)

    def freeze(self) -> None:
        local.freeze(self.popen)
        self.frozen_since = time.monotonic()

    def thaw(self) -> None:
        local.thaw(self.popen)
        self.frozen_since = None


class Fleet:
    """The members of one run, which are gone after `stop`; and the index, which serves the next run too."""

    def __init__(
        self,
        environment: Mapping[str, str],
        logs: Path,
        mutation: str = "",
        index: Process | None = None,
        *,
        little_memory: bool = False,
    ) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._mutation = mutation
        self.full_disk = logs / "disk-is-full"
        """While this file exists, members cannot spill."""
        self._little_memory = little_memory
        if little_memory:
            self._environment |= {
                "SOP_MATERIALIZER__MAX_BUFFER_BYTES": str(LITTLE_MEMORY),
                "SOP_MATERIALIZER__SPILL_DIR": str(logs / "spill"),
            }
        self._number = 0
        self.members: list[Process] = []
        self.index = index
        self.crashes: list[str] = []

    def start_member(self, plan: MemberPlan | None = None) -> Process:
        """A member; `sop materialize` itself when there is nothing to tell it."""
        plan = plan or MemberPlan()
        command = [str(Path(sys.executable).with_name("sop")), "materialize"]
        if plan != MemberPlan() or self._mutation or self._little_memory:
            options = {"die-at": plan.die_at, "freeze-at": plan.freeze_at, "mutate": self._mutation}
            command = [sys.executable, "-m", "tests.chaos.member", "--nth", str(plan.nth)]
            if self._little_memory:
                options["full-disk"] = str(self.full_disk)
            command += [text for name, value in options.items() if value for text in (f"--{name}", value)]
        process = self._start("materialize", command, plan)
        self.members.append(process)
        return process

    def start_index(self) -> Process:
        self.index = self._start("index", [str(Path(sys.executable).with_name("sop")), "index"], MemberPlan())
        return self.index

    def await_owner(self, seconds: float) -> None:
        """Wait until some member says that it took a partition over, or is gone."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and all(member.alive for member in self.members):
            if any("partition_taken_over" in member.tail() for member in self.members):
                return
            time.sleep(0.1)

    def gone(self) -> list[Process]:
        """Members that ended since the last call; a crash is one that nobody asked for."""
        gone = [process for process in self.members if not process.alive]
        for process in gone:
            self.members.remove(process)
            self._note(process)
        if self.index is not None and not self.index.alive:
            self._note(self.index)
            self.index = None
        return gone

    def leave(self, process: Process) -> None:
        """Ask a member to leave the group, and wait until it did."""
        process.killed = True
        process.send(signal.SIGTERM)
        try:
            process.popen.wait(SETTLE)
        except subprocess.TimeoutExpired:
            process.thaw()  # one that has frozen itself meanwhile would not hear of it
        try:
            process.popen.wait(60)
        except subprocess.TimeoutExpired:
            self.crashes.append(f"{process.name} did not end within 60 s of SIGTERM:\n{process.tail()}")
            process.kill()

    def stop(self, *, kill: bool = False) -> None:
        """End of a run: all members leave the group, so that the next run need not wait for their sessions.

        `kill` those of a run that is stuck: nobody waits for them any more.
        """
        self.gone()
        for process in self.members:
            if kill:
                process.kill()
        for process in self.members:
            process.thaw()
            process.killed = True
            process.send(signal.SIGTERM)
        for process in self.members:
            self.leave(process)
        self.members = []

    def _start(self, kind: str, command: list[str], plan: MemberPlan) -> Process:
        self._number += 1
        name = f"{kind}-{self._number}"
        log = self._logs / f"{name}.log"
        # On the leash nothing outlives the harness, however that ends; the process keeps its id.
        leashed = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *command]
        with log.open("wb") as out:
            popen = subprocess.Popen(leashed, env=self._environment, cwd=ROOT, stdout=out, stderr=out)
        return Process(name, popen, log, plan)

    def _note(self, process: Process) -> None:
        expected = process.killed or any(mark.startswith("died at") for mark in process.marks())
        if not expected:
            self.crashes.append(f"{process.name} ended with {process.popen.returncode}:\n{process.tail()}")
