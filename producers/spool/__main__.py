"""The publisher's process; `process.py` starts it and speaks with it through its standard input and output.

It outlives neither its robot nor a terminal's Ctrl-C before it: its end is the end of its input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

import structlog

from infra.clock import SystemClock
from infra.errors import SettingInvalid
from infra.kafka import EventProducer
from infra.pace import Pace
from infra.registry import Registry
from infra.settings import S3Settings
from infra.telemetry import configure_logging
from producers.clones import CloneWatch, heartbeats
from producers.frames.uploads import FrameUploads, Objects
from producers.spool.directory import SpoolDirectory
from producers.spool.messages import Begin, Offer, status_line
from producers.spool.publisher import Publisher, Status
from producers.spool.reading import SpoolReading
from producers.spool.schema_ids import KnownIds, RegistryIds

# Seconds for the publisher before this one to notice that its robot is gone.
_PATIENCE = 30.0
_REPORT_EVERY = 0.1
_FLUSH = 2.0

_log = structlog.get_logger(__name__)


def main() -> None:
    """Publish until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the robot says when it is over, and is told by the same signals
    line = sys.stdin.readline()
    if not line:
        return  # the robot went before it had said a word
    begin = Begin.model_validate_json(line)
    if os.getppid() != begin.robot_pid:
        return  # the spool is for the next boot's publisher
    configure_logging(f"{begin.robot_id}-publisher")
    offers: queue.SimpleQueue[Offer] = queue.SimpleQueue()
    over = threading.Event()
    threading.Thread(target=_listen, args=(offers, over), name="commands", daemon=True).start()
    directory = SpoolDirectory(Path(begin.directory))
    with directory.exclusive(_PATIENCE):
        if os.getppid() != begin.robot_pid:
            os._exit(0)
        known = KnownIds(directory.path / "schema-ids.json", begin.registry.url)
        try:
            publisher = Publisher(
                SpoolReading(directory),
                lambda: EventProducer(begin.kafka, begin.robot_id, delivery_timeout=None),
                RegistryIds(Registry(begin.registry), known),
                SystemClock(),
                sync_interval=begin.robot.sync_interval,
                drain_rate=begin.robot.drain_rate,
                frames=FrameUploads(directory.frames, lambda: _objects(begin.s3), SystemClock()),
            )
        except SettingInvalid as error:
            _tell(Status(directory.acknowledged(), errors=(str(error),)))
            sys.exit(2)
        watch = _watch(begin)
        _publish(publisher, offers, over, begin.robot_pid, watch)
        watch.close()
        publisher.close(_FLUSH if os.getppid() == begin.robot_pid else 0.0)
        _tell(publisher.status())
    os._exit(0)  # what is still on its way stays in the spool: nobody has to wait for its connections


def _watch(begin: Begin) -> CloneWatch:
    registry = Registry(begin.registry)  # of its own: it may wait for long
    return CloneWatch(
        lambda wait: heartbeats(begin.kafka, registry.schema_of, begin.robot_id, wait),
        begin.robot_id,
        begin.boot_epoch,
    )


def _publish(
    publisher: Publisher,
    offers: queue.SimpleQueue[Offer],
    over: threading.Event,
    robot: int,
    watch: CloneWatch,
) -> None:
    told, told_at, trouble = None, 0.0, ""
    while os.getppid() == robot:
        last = over.is_set()  # asked first, so that what was offered before the end is still sent
        with contextlib.suppress(queue.Empty):
            while True:
                offer = offers.get_nowait()
                publisher.offer(offer.record())
        if last:
            return
        try:
            publisher.turn()
            trouble = ""
        except OSError as error:
            if trouble != str(error):
                trouble = str(error)
                _log.error("spool_unreadable", error=trouble)
            time.sleep(0.2)
        status = dataclasses.replace(publisher.status(trouble), clone=watch.notice)
        now = time.monotonic()
        if status != told and now - told_at >= _REPORT_EVERY:
            _tell(status)
            told, told_at = status, now


def _objects(settings: S3Settings) -> Objects:
    from infra.object_store import ObjectStore  # noqa: PLC0415 - a second of CPU, for robots with cameras only

    return ObjectStore(settings, Pace(settings.max_put_bytes_per_second, SystemClock()))


def _tell(status: Status) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(status_line(status))
        sys.stdout.flush()


def _listen(offers: queue.SimpleQueue[Offer], over: threading.Event) -> None:
    for line in sys.stdin:
        offers.put(Offer.model_validate_json(line))
    over.set()


if __name__ == "__main__":
    main()
