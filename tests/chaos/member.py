"""A member of the materializer's group that ends, or freezes, itself at a chosen place.

    python -m tests.chaos.member --die-at inside-transaction --nth 3

It runs the real `consumers.materializer.run`; the seams that it stands on are wrapped from outside. Death is
SIGKILL, freezing SIGSTOP (somebody else continues it), so nothing is cleaned up.
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from consumers import materializer
from infra.kafka import GroupConsumer, LogReader, TransactionalProducer
from infra.lifecycle import stop_on_signals
from infra.object_store import ObjectStore
from infra.settings import load_settings
from infra.telemetry import configure_logging
from tests.chaos.kinds import STAGES
from tests.chaos.mutations import MUTATIONS
from tests.chaos.processes import MARK

LINGER = 2.5
"""Seconds that a thawed member goes on sleeping before it does what it was about to do: an upload that takes its
time, while the client's own threads already speak to the group again."""


class Stages:
    """Counts how often each stage was reached, and acts when it is time."""

    def __init__(self, die_at: str, freeze_at: str, nth: int) -> None:
        self._die_at, self._freeze_at, self._nth = die_at, freeze_at, nth
        self._counts: Counter[str] = Counter()
        self._guard = threading.Lock()

    def reached(self, stage: str) -> None:
        """A stage was reached; perhaps the last thing that this process does."""
        if self.due(stage):
            self.act(stage)

    def due(self, stage: str) -> bool:
        with self._guard:
            self._counts[stage] += 1
            return stage in (self._die_at, self._freeze_at) and self._counts[stage] == self._nth

    def act(self, stage: str) -> None:
        if stage == self._die_at:
            _say(f"died at {stage}")
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        _say(f"frozen at {stage}")
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(LINGER)


class WatchedProducer:
    """confluent_kafka's producer with two stages inside its transaction."""

    def __init__(self, inner: Any, stages: Stages) -> None:
        self._inner, self._stages = inner, stages
        self._records = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def begin_transaction(self) -> None:
        self._records = 0
        self._inner.begin_transaction()

    def produce(self, *args: Any, **kwargs: Any) -> None:
        self._records += 1
        self._inner.produce(*args, **kwargs)

    def send_offsets_to_transaction(self, *args: Any) -> None:
        if self._stages.due("inside-transaction"):
            self._inner.flush(10)  # the records are with the broker, the offsets are not
            self._stages.act("inside-transaction")
        self._inner.send_offsets_to_transaction(*args)

    def commit_transaction(self, *args: Any) -> None:
        if self._records:  # one of offsets alone is of no interest
            self._stages.reached("before-commit")
        if self._stages.due("during-commit"):
            _meanwhile(lambda: self._inner.commit_transaction(*args))
            self._stages.act("during-commit")
        self._inner.commit_transaction(*args)


def watch(stages: Stages) -> None:
    """Wrap the seams."""
    _wrap(GroupConsumer, "consume", after=lambda found: stages.reached("after-poll") if found else None)
    _wrap(LogReader, "read_to_end", before=lambda: stages.reached("during-takeover"))
    _wrap(
        TransactionalProducer,
        "commit",
        before=lambda: stages.reached("before-transaction"),
        after=lambda _: stages.reached("after-transaction"),
    )
    put, begin = ObjectStore.put, TransactionalProducer.__init__

    def watched_put(self: ObjectStore, key: str, data: bytes) -> str:
        if stages.due("during-payload"):
            _meanwhile(lambda: put(self, key, data))
            stages.act("during-payload")
        uri = put(self, key, data)
        stages.reached("after-payload")
        return uri

    def watched_begin(self: TransactionalProducer, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self._producer = WatchedProducer(self._producer, stages)  # type: ignore[assignment]

    ObjectStore.put = watched_put  # type: ignore[method-assign]
    TransactionalProducer.__init__ = watched_begin  # type: ignore[method-assign]


def fill_disk(flag: Path) -> None:
    """While `flag` exists, a file of spilled steps takes some bytes and no more, as on a full disk."""
    really_open = Path.open

    def watched_open(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = really_open(self, mode, *args, **kwargs)
        return FullDisk(file, flag) if self.suffix == ".arrow" and "a" in mode else file

    Path.open = watched_open  # type: ignore[method-assign]


class FullDisk:
    """A file on a disk that is full while a flag exists."""

    def __init__(self, file: Any, flag: Path) -> None:
        self._file, self._flag = file, flag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        if self._flag.exists():
            _say("disk full")
            self._file.write(bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))


def _wrap(
    owner: type, name: str, before: Callable[[], None] | None = None, after: Callable[[Any], None] | None = None
) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        result = inner(*args, **kwargs)
        if after is not None:
            after(result)
        return result

    setattr(owner, name, watched)


def _meanwhile(work: Callable[[], object]) -> None:
    """Begin some work and give it a moment, less than it takes."""
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.002)


def _say(text: str) -> None:
    sys.stderr.write(f"\n{MARK}{text}\n")
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.member", description=__doc__.splitlines()[0])
    parser.add_argument("--die-at", choices=STAGES, default="")
    parser.add_argument("--freeze-at", choices=STAGES, default="")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--mutate", choices=sorted(MUTATIONS), default="")
    parser.add_argument("--full-disk", type=Path, help="the disk is full while this file exists")
    chosen = parser.parse_args()
    settings = load_settings()
    configure_logging("materialize")
    stop = stop_on_signals()
    if chosen.mutate:
        MUTATIONS[chosen.mutate]()
    if chosen.full_disk:
        fill_disk(chosen.full_disk)
    watch(Stages(chosen.die_at, chosen.freeze_at, chosen.nth))
    materializer.run(settings, stop)


if __name__ == "__main__":
    main()
