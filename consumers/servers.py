"""What the materializer talks to; tests put their own in place of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from consumers.graveyard import DeadLetterLog
from consumers.history import Graveyard
from infra.kafka import GroupConsumer, LogReader, TransactionalProducer
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.topics import EPISODE_TOPICS


@dataclass(frozen=True)
class Servers:
    """Connections of one member; `begin` makes its producer, which settles what an older one of it left open.

    `reader` is used in the main thread only, by take-overs and by the graveyard.
    """

    registry: Registry
    objects: ObjectStore
    reader: LogReader
    graveyard: Graveyard
    consumer: GroupConsumer
    begin: Callable[[], TransactionalProducer]

    @classmethod
    def connect(cls, settings: Settings) -> Servers:
        """The real ones.

        Raises:
            KafkaUnavailable: no answer, or a topic is missing.
        """
        kafka, own = settings.kafka, settings.materializer
        # Fencing is by the group's generation, so the id need only be unique.
        name = f"materializer-{uuid.uuid4().hex}"
        reader = LogReader(kafka, "materializer-takeover")
        return cls(
            Registry(settings.registry),
            ObjectStore(settings.s3),
            reader,
            DeadLetterLog(kafka, reader),
            GroupConsumer(kafka, own.group, EPISODE_TOPICS),
            lambda: TransactionalProducer(kafka, name, timeout=own.transaction_timeout),
        )

    def close(self) -> None:
        """Leave the group, and let go of the connections."""
        self.consumer.close()
        self.reader.close()
