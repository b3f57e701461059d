"""Where a robot hears of policies: the control topic from its beginning, and the artifacts in the object store."""

from __future__ import annotations

from typing import Protocol

import structlog

from infra.decoder import event_in
from infra.errors import InfraError, OffsetsExpired
from infra.kafka import LogReader, Message, Partition
from infra.kafka.log_reader import all_partitions
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.events import PolicyVersion
from schemas.topics import POLICY_VERSIONS

_log = structlog.get_logger(__name__)


class PolicyFeed(Protocol):
    """Announcements and artifacts.

    Raises (all methods but `close`):
        InfraError: a server did not answer; the same call may be made again.
    """

    def poll(self, timeout: float) -> list[PolicyVersion]:
        """Announcements that came since the last call, waiting at most `timeout` seconds for the first."""

    def download(self, announcement: PolicyVersion) -> bytes:
        """The artifact, not verified.

        Raises:
            ValueError: its address is outside the bucket of the settings.
        """

    def close(self) -> None:
        """Let go of the connections."""


class KafkaPolicyFeed:
    """Reads policy-versions without a group: every robot sees every announcement. Implements `PolicyFeed`."""

    def __init__(self, settings: Settings, robot_id: str) -> None:
        self._reader = LogReader(settings.kafka, f"{robot_id}-policy-inbox")
        self._registry = Registry(settings.registry)
        self._store = ObjectStore(settings.s3)
        self._assigned = False
        self._positions: dict[Partition, int] = {}

    def poll(self, timeout: float) -> list[PolicyVersion]:
        """New announcements; undecodable ones are logged and left out. See `PolicyFeed`."""
        try:
            if not self._assigned:
                self._reader.assign(all_partitions(self._reader, [POLICY_VERSIONS]) | self._positions)
                self._assigned = True
            messages = self._reader.consume(100, timeout)
            announcements = [self._decode(message) for message in messages if message.value() is not None]
        except InfraError as error:
            # The reader is past what is not decoded: the next call reads on from what the last good one returned.
            self._assigned = False
            if isinstance(error, OffsetsExpired):
                self._positions = {}  # the topic was made anew: read it from its new beginning
            raise
        for message in messages:
            self._positions[POLICY_VERSIONS, int(message.partition() or 0)] = int(message.offset() or 0) + 1
        return [announcement for announcement in announcements if announcement is not None]

    def download(self, announcement: PolicyVersion) -> bytes:
        """The artifact. See `PolicyFeed`."""
        return self._store.get(self._store.key(announcement.artifact_uri))

    def close(self) -> None:
        """Let go of the connections."""
        self._reader.close()

    def _decode(self, message: Message) -> PolicyVersion | None:
        try:
            return event_in(message.value(), PolicyVersion, self._registry.schema_of)
        except SchemaError as error:
            _log.error("policy_announcement_undecodable", offset=message.offset(), error=str(error))
            return None
