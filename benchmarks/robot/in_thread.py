"""The publisher in a thread of the robot's process: the choice that was turned down, kept to be measured."""

from __future__ import annotations

import threading

from infra.clock import SystemClock
from infra.kafka import EventProducer
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from producers.frames.uploads import FrameUploads
from producers.outbox import Item
from producers.spool.directory import SpoolDirectory
from producers.spool.publisher import Publisher, Status
from producers.spool.reading import SpoolReading
from producers.spool.schema_ids import KnownIds, RegistryIds


class PublisherThread:
    """Implements `producers.spool.outbox.PublisherLink`."""

    def __init__(self, settings: Settings, directory: SpoolDirectory, robot_id: str, _boot_epoch: int) -> None:
        self._settings = settings
        self._directory = directory
        self._robot_id = robot_id
        self._status = Status(directory.acknowledged())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def status(self) -> Status:
        """As of the last turn."""
        return self._status

    def errors(self) -> tuple[str, ...]:
        """What is wrong."""
        return self._status.errors

    def offer(self, entry: Item) -> None:
        """Heartbeats are not measured here."""

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        robot = self._settings.robot
        publisher = Publisher(
            SpoolReading(self._directory),
            lambda: EventProducer(self._settings.kafka, self._robot_id, delivery_timeout=None),
            RegistryIds(Registry(self._settings.registry), KnownIds(self._directory.path / "schema-ids.json", "")),
            SystemClock(),
            sync_interval=robot.sync_interval,
            drain_rate=robot.drain_rate,
            frames=FrameUploads(self._directory.frames, lambda: ObjectStore(self._settings.s3), SystemClock()),
        )
        while not self._over.is_set():
            publisher.turn()
            self._status = publisher.status()
        publisher.close(2.0)
