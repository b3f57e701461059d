"""The servers, the door in front of the object store, and the clients that many runs share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import OFFSET_INVALID

from infra.kafka.positions import committed_offsets
from infra.local.stack import Stack
from infra.settings import KafkaSettings
from tests.chaos.audit import Audit, audit
from tests.chaos.processes import ROOT, Fleet, Process
from tests.chaos.proxy import Proxy
from tests.chaos.readings import OUTPUTS, PARTITIONS, Offsets, Reader, patiently
from tests.chaos.timing import CLICKHOUSE_TIMEOUT, EPISODE_TIMEOUT, S3_TIMEOUT
from tests.chaos.wire import TOPICS, Schemas, Wire

TUNING = {
    "SOP_MATERIALIZER__EPISODE_TIMEOUT": str(EPISODE_TIMEOUT),
    "SOP_MATERIALIZER__OFFSETS_INTERVAL": "1",
    "SOP_MATERIALIZER__TRANSACTION_TIMEOUT": "6",
    "SOP_S3__TIMEOUT": str(S3_TIMEOUT),
    "SOP_CLICKHOUSE__TIMEOUT": str(CLICKHOUSE_TIMEOUT),
}


class Harness:
    """One stack for many runs; topics stay, robots and episodes are each run's own."""

    def __init__(self, stack: Stack, logs: Path) -> None:
        self.stack = stack
        self._logs = logs
        direct = stack.environment()
        self._plain = {name: value for name, value in os.environ.items() if not name.startswith("SOP_")}
        self._deploy({**self._plain, **direct})
        door = urlsplit(direct["SOP_S3__ENDPOINT_URL"])
        self.proxy = Proxy(str(door.hostname), int(door.port or 80))
        self._environment = {**self._plain, **direct, **TUNING, "SOP_S3__ENDPOINT_URL": self.proxy.url}
        self._schemas = Schemas(direct["SOP_REGISTRY__URL"])
        self.reader = Reader(direct, self._schemas)
        self.wire = Wire(direct["SOP_KAFKA__BOOTSTRAP_SERVERS"], self._schemas)
        self._bootstrap = direct["SOP_KAFKA__BOOTSTRAP_SERVERS"]
        self._direct = {**self._plain, **direct}
        self._runs = 0
        self.index: Process | None = None

    def fleet(self, mutation: str = "", *, little_memory: bool = False) -> Fleet:
        """Processes of one run, with a folder of their own for their logs; with little memory they spill a lot."""
        self._runs += 1
        logs = self._logs / f"run-{self._runs}{'-' + mutation if mutation else ''}"
        logs.mkdir(parents=True)
        return Fleet(self._environment, logs, mutation, self.index, little_memory=little_memory)

    def progress(self) -> tuple[Offsets, Offsets]:
        """Ends of the robot topics, and what the materializer's group has committed."""
        return self.reader.ends(TOPICS), self._committed("materializer", TOPICS)

    def index_lag(self) -> Offsets:
        """How many offsets the index has not committed, by partition that it has to read."""
        committed = self._committed("index", OUTPUTS)
        lasts = self.reader.lasts(OUTPUTS)
        return {place: last + 1 - committed[place] for place, last in lasts.items() if last >= committed[place]}

    def _committed(self, group: str, topics: tuple[str, ...]) -> Offsets:
        places = [(topic, number) for topic in topics for number in range(PARTITIONS)]
        kafka = KafkaSettings(bootstrap_servers=self._bootstrap)
        # A client of its own each time: one that saw the broker die may wait for the dead connection's answer.
        found = patiently(lambda: committed_offsets(kafka, group, places))
        return {place: found.get(place, OFFSET_INVALID) for place in places}

    def audit(self) -> Audit:
        """What `sop reconcile` says of everything that was done to this stack."""
        return audit(self._direct, self._logs / "reconcile.json")

    def close(self) -> None:
        """End what outlives a run."""
        if self.index is not None:
            self.index.kill()
        self.proxy.close()

    @staticmethod
    def _deploy(environment: dict[str, str]) -> None:
        command = [str(Path(sys.executable).with_name("sop")), "deploy"]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=180)


@contextmanager
def harness_on(data_dir: Path) -> Iterator[Harness]:
    """A fresh stack under `data_dir`, deployed."""
    with Stack.start(data_dir, timeout=300) as stack:
        harness = Harness(stack, data_dir / "chaos-logs")
        try:
            yield harness
        finally:
            harness.close()
