"""From publishing an artifact to four robots that may swap to it, beside the same bytes moved by nothing but S3.

*Raw* is one PUT, then four GETs at once, each hashed and written, until the file is on the disk. A robot hears
the announcement, verifies its signature, downloads, verifies size and sha256, and waits for the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.robot.bench import Bench
from infra.kafka import EventProducer, OutRecord
from infra.object_store import ObjectStore
from infra.policies.keys import SigningKey
from infra.registry import Registry
from infra.settings import PolicySettings, Settings
from producers.policy_feed import KafkaPolicyFeed
from producers.policy_inbox import PolicyInbox
from producers.policy_store import PolicyStore
from schemas.codec import encode, frame, latest
from schemas.events import PolicyVersion
from schemas.topics import POLICY_VERSIONS

ROBOTS = 4
TARGET = 1.5
LINE = "bench"
PATIENCE = 600.0
PART = 8 * 2**20


def swap(bench: Bench) -> list[str]:
    """In turns, three of each for small artifacts, two for large ones."""
    sizes = [int(megabytes) * 10**6 for megabytes in bench.options.megabytes.split(",")]
    rows, missed, version = [], [], 0
    with Publishing(bench) as publishing:
        for size in sizes:
            data = np.random.default_rng(size).bytes(size)
            raw, ready = [], []
            for _ in range(3 if size < 10**8 else 2):
                version += 1
                raw.append(moved(bench, data, version))
                ready.append(publishing.publish(data, version))
            ratio = statistics.median(ready) / statistics.median(raw)
            rows.append([f"{size / 1e6:.0f}", _times(raw), _times(ready), f"{ratio:.2f}"])
            if ratio > TARGET:
                missed.append(f"publish to ready of {size / 1e6:.0f} MB takes {ratio:.2f} times the bytes alone")
    header = ("MB", "raw PUT and 4 GETs, s", "publish to 4 robots ready, s", "ratio")
    bench.report.section("Publish to ready", header, rows)
    return missed


def moved(bench: Bench, data: bytes, number: int) -> float:
    """Seconds of one PUT and four GETs, each hashed and written."""
    store, folder = ObjectStore(bench.settings.s3), bench.folder / "raw"
    folder.mkdir()
    key = f"raw/{number}"
    begun = time.perf_counter()
    store.put(key, data)
    with ThreadPoolExecutor(ROBOTS) as pool:
        digests = set(pool.map(lambda n: _get(bench.settings, key, len(data), folder / str(n)), range(ROBOTS)))
    seconds = time.perf_counter() - begun
    assert len(digests) == 1
    shutil.rmtree(folder)
    store.delete(key)
    return seconds


def _get(settings: Settings, key: str, size: int, path: Path) -> str:
    store, digest = ObjectStore(settings.s3), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, PART):
            part = store.get_range(key, start, min(PART, size - start))
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


class Publishing:
    """Four robots that follow a line, and who publishes on it."""

    def __init__(self, bench: Bench) -> None:
        self._key = SigningKey.generate()
        self._store = ObjectStore(bench.settings.s3)
        self._schema_id = Registry(bench.settings.registry).id_of(POLICY_VERSIONS, latest(PolicyVersion.record))
        self._producer = EventProducer(bench.settings.kafka, "bench-learner")
        policies = PolicySettings(learner_keys=(self._key.public,), keep=1)
        self._folder = bench.folder / "robots"
        self._inboxes = [
            PolicyInbox(
                LINE,
                KafkaPolicyFeed(bench.settings, f"robot-{n}"),
                PolicyStore(self._folder / str(n), policies.keep),
                robot_id=f"robot-{n}",
                settings=policies,
            )
            for n in range(ROBOTS)
        ]

    def __enter__(self) -> Publishing:
        self.publish(b"warm", 0)
        return self

    def __exit__(self, *_: object) -> None:
        for inbox in self._inboxes:
            inbox.close()
        shutil.rmtree(self._folder)

    def publish(self, data: bytes, number: int) -> float:
        """Seconds from the PUT until all robots may swap to it."""
        version = self._version(data, number)
        begun = time.perf_counter()
        self._store.put(self._store.key(version.artifact_uri), data)
        event = self._key.sign(version)
        key = f"{event.policy}/{event.version}".encode()
        self._producer.send(OutRecord(POLICY_VERSIONS, key, frame(self._schema_id, encode(event))))
        assert self._producer.flush(PATIENCE) == 0
        waiting = [threading.Thread(target=self._wait(inbox, version.version)) for inbox in self._inboxes]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        seconds = time.perf_counter() - begun
        for inbox in self._inboxes:
            file = inbox.current()
            assert file is not None, inbox.errors()
            assert file.version == version.version, inbox.errors()
        self._store.delete(self._store.key(version.artifact_uri))
        return seconds

    def _wait(self, inbox: PolicyInbox, version: int) -> Callable[[], object]:
        return lambda: inbox.wait_for(lambda announced: announced.version == version, PATIENCE)

    def _version(self, data: bytes, number: int) -> PolicyVersion:
        return PolicyVersion(
            policy=LINE,
            version=number + 1,
            artifact_uri=self._store.uri(f"policies/{LINE}/{number}"),
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            algorithm="bc",
            learner_step=number,
            episodes_admitted=0,
            offsets=(),
            config="{}",
            code_version="bench",
            published_at=datetime.now(UTC),
        )


def _times(seconds: list[float]) -> str:
    return " / ".join(f"{second:.2f}" for second in seconds)
