"""Two clients that call themselves by the same robot_id: noticed by each, and told on robot-status.

A disk that was copied, or a name that was given twice, makes two robots one: their episodes mix, and a rollout
means both. They do not fence each other, as both record what nobody could record again. Each looks, once a minute,
at what comes on robot-status under its name for a few seconds: a fleet that followed the whole topic would read it
as many times as it has robots.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from infra.decoder import SchemaLookup, event_in
from infra.errors import InfraError
from infra.kafka import LogReader
from infra.kafka.partitioner import partition_of
from infra.settings import KafkaSettings
from schemas.errors import SchemaError
from schemas.events import Heartbeat
from schemas.topics import ROBOT_STATUS

# Seconds between two looks, of one look, and before the first.
_PAUSE, _LOOK, _FIRST = 60.0, 8.0, 5.0
# One may be the farewell of a client that this one takes over from.
_ENOUGH = 2

Wait = Callable[[float], bool]
"""Waits so many seconds; True when nobody wants to know any more."""

_log = structlog.get_logger(__name__)


def other_boot(own: int, epochs: Iterable[int]) -> int | None:
    """Boot epoch of another client that reported more than once meanwhile; None when there is none.

    Args:
        own: boot epoch of this client.
        epochs: those of the heartbeats under its robot_id during one look.
    """
    counts = Counter(epoch for epoch in epochs if epoch != own)
    return max((epoch for epoch, count in counts.items() if count >= _ENOUGH), default=None)


def heartbeats(
    kafka: KafkaSettings, schema_of: SchemaLookup, robot_id: str, wait: Callable[[float], bool]
) -> list[int]:
    """Boot epochs of the heartbeats that come under a robot's name in the next seconds.

    Args:
        kafka: where robot-status is.
        schema_of: finds the schemas that heartbeats were written with.
        robot_id: the name.
        wait: between the first and the last of them.

    Raises:
        KafkaUnavailable, RegistryUnavailable: not now.
    """
    reader = LogReader(kafka, f"{robot_id}-clones")
    try:
        partitions = reader.partitions(ROBOT_STATUS)
        partition = partitions[partition_of(robot_id.encode(), len(partitions))]
        _, start = reader.bounds(partition)
        if wait(_LOOK):
            return []
        epochs = []
        for message in reader.read_to_end({partition: start}, kafka.request_timeout):
            if message.key() == robot_id.encode():
                try:
                    epochs.append(event_in(message.value(), Heartbeat, schema_of).boot_epoch)
                except SchemaError as error:
                    _log.warning("heartbeat_unreadable", offset=message.offset(), error=str(error))
        return epochs
    finally:
        reader.close()


class CloneWatch:
    """Looks in a thread of its own, until `close`.

    Attributes:
        notice: what the last look found, in words; None when it found nothing.
    """

    def __init__(
        self, look: Callable[[Callable[[float], bool]], list[int]], robot_id: str, boot_epoch: int
    ) -> None:
        self.notice: str | None = None
        self._look = look
        self._robot_id = robot_id
        self._boot_epoch = boot_epoch
        self._over = threading.Event()
        threading.Thread(target=self._run, name="clones", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        pause = _FIRST
        while not self._over.wait(pause):
            pause = _PAUSE
            try:
                other = other_boot(self._boot_epoch, self._look(self._over.wait))
            except InfraError:
                continue  # who sends to the brokers says that they are away
            except Exception:  # noqa: BLE001 - a look is never worth the publisher
                _log.exception("clones_not_looked_for")
                continue
            before, self.notice = self.notice, None
            if other is not None:
                self.notice = (
                    f"another client with the robot_id {self._robot_id} is alive (boot epoch {other}, this one is "
                    f"{self._boot_epoch}): give one of the two robots a name of its own"
                )
                if before is None:
                    _log.error("robot_id_cloned", robot_id=self._robot_id, other_boot_epoch=other)
