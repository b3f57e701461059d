"""A policy that comes while the robot acts: another writer on the disk of `step()`, in the robot's own process."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from infra.clock import SystemClock
from infra.object_store import ObjectStore
from infra.settings import Settings
from producers.policy_download import Interrupted, download
from producers.policy_feed import KafkaPolicyFeed
from producers.policy_link import Link
from schemas.events import PolicyVersion

_BYTES = 200 * 10**6
_PATIENCE = 60.0


@contextmanager
def downloading(settings: Settings, folder: Path, bytes_per_second: float | None) -> Iterator[None]:
    """One download after the other until the block is left, as `PolicyInbox` makes them.

    Raises:
        AssertionError: nothing came, or the download failed: what was measured meanwhile says nothing.
    """
    announced, over, failures = _published(settings), threading.Event(), list[Exception]()
    path = folder / "policy.part"
    feed = KafkaPolicyFeed(settings, "bench-download")

    def between(seconds: float) -> None:
        if over.wait(seconds):
            raise Interrupted

    def run() -> None:
        link = Link(bytes_per_second, SystemClock())
        try:
            while True:
                download(announced, path, feed, link, between, 0)
                path.unlink()
        except Interrupted:
            return
        except Exception as error:  # noqa: BLE001 - told where it is waited for
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _PATIENCE
        while not (path.exists() and path.stat().st_size):
            assert not failures, failures
            assert time.monotonic() < until, "nothing came"
            time.sleep(0.01)
        yield
        assert not failures, failures
    finally:
        over.set()
        thread.join()
        feed.close()
        path.unlink(missing_ok=True)


def _published(settings: Settings) -> PolicyVersion:
    store, key = ObjectStore(settings.s3), "policies/bench-download/1"
    data = np.random.default_rng(3).bytes(_BYTES)
    if not store.exists(key):
        store.put(key, data)
    return PolicyVersion(
        policy="bench-download",
        version=1,
        artifact_uri=store.uri(key),
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        algorithm="bc",
        learner_step=0,
        episodes_admitted=0,
        offsets=(),
        config="{}",
        code_version="bench",
        published_at=datetime.now(UTC),
    )
