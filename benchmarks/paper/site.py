"""Real servers and workers for one unit, in a directory of their own; a base's directory is where runs begin."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.meter import Meter
from benchmarks.paper.program import Base, Program
from examples.metaworld.demo import servers
from examples.metaworld.demo.crew import Crew
from infra.clickhouse.client import Client, connect
from infra.clock import SystemClock
from infra.deploy import deploy
from infra.settings import Settings

WHOLE = "whole"
"""A file that says that a base's directory is finished; it holds the base's result."""

_LOOK_SECONDS = 0.3


class UnitFailed(Exception):
    """A unit did not come to its end; the text says why."""


@dataclass
class Site:
    """Servers that run, and the processes that work on them."""

    home: Path
    settings: Settings
    crew: Crew
    meter: Meter
    _environment: Mapping[str, str]

    def configure_learner(self, learner: Mapping[str, str]) -> None:
        """Settings with which processes are started from now on."""
        keys = servers.make_keys(self.home)
        _, self.settings = servers.write_settings(self.home, self._environment, learner, keys)

    def wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Wait until `done`, mending workers.

        Raises:
            UnitFailed: it was not within so many wall seconds.
            CrewFailed: a robot failed, or a worker dies again and again.
        """
        until = time.monotonic() + seconds
        while not done():
            self.crew.mend()
            self.meter.look()
            if time.monotonic() > until:
                raise UnitFailed(f"{what}: not within {seconds:.0f} s; logs are in {self.home / 'logs'}")
            time.sleep(_LOOK_SECONDS)
        self.meter.look()

    def ask(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Rows from ClickHouse, as the analyst; parameters are bound (`{name:Type}`)."""
        client: Client = connect(self.settings.clickhouse, analyst=True)
        try:
            return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]
        finally:
            client.close()

    def lines(self) -> set[str]:
        """Policy lines that have a version."""
        return {row[0] for row in self.ask("SELECT DISTINCT policy FROM policy_versions")}


@contextmanager
def running(home: Path, learner: Mapping[str, str]) -> Iterator[Site]:
    """Start the servers, `materialize` and `index`; everything is gone at the end but the directory.

    Raises:
        infra.local.stack.StackError, infra.errors.InfraError: a server failed.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with servers.running(home, outlive=False) as environment:
        env_file, settings = servers.write_settings(home, environment, learner, servers.make_keys(home))
        deploy(settings)
        crew = Crew(env_file, home / "logs", SystemClock())
        try:
            for name in ("materialize", "index"):
                crew.start_worker(name)
            yield Site(home, settings, crew, Meter(), environment)
        finally:
            crew.stop()


def base_home(work: Path, program: Program, base: Base) -> Path:
    """Directory of a base."""
    return work / f"{base.name}-{program.digest(base)[:12]}"


def copy(base: Path, home: Path) -> None:
    """A fresh copy of a base's directory: its log, its objects, its tables and the checkpoint of version 1."""
    if home.exists():
        shutil.rmtree(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    # Kafka's index files are mostly holes, and the object store keeps facts in extended attributes.
    subprocess.run(["cp", "-a", "--sparse=always", str(base), str(home)], check=True)
    (home / WHOLE).unlink()
    for leftover in ("robots", "logs"):
        shutil.rmtree(home / leftover, ignore_errors=True)
