"""Where a robot hears of policies: the control topics from their beginnings, and artifacts in the object store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog

from infra.errors import InfraError, OffsetsExpired
from infra.kafka import LogReader, Message, Partition
from infra.kafka.log_reader import all_partitions
from infra.object_store import ObjectStore
from infra.policies.announced import Announced, announced_in, record_key
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.events import PolicyRollout, PolicyVersion
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS

# Rollouts are few: one record for each line, and those that compaction has not taken yet.
_CATCH_UP_SECONDS = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """One record of a control topic: what it announces, not verified; or, where that is None, what is wrong."""

    key: str
    offset: int
    announced: Announced[PolicyVersion] | Announced[PolicyRollout] | None
    problem: str = ""


class PolicyFeed(Protocol):
    """Announcements and artifacts.

    Raises (`poll`, `size` and `read`):
        InfraError: a server did not answer; the same call may be made again.
    """

    def poll(self, timeout: float) -> list[Heard]:
        """What came since the last call, waiting at most `timeout` seconds for the first.

        The first call that returns has heard all rollouts that there are: nobody may follow versions before that.
        """

    def heard_all(self) -> bool:
        """Whether `poll` has returned all that the control topics held when they were first asked.

        Before that the newest version that was heard may be an old one.
        """

    def size(self, announcement: PolicyVersion) -> int:
        """Bytes of the artifact.

        Raises:
            ObjectMissing: there is none.
            ValueError: its address is outside the bucket of the settings.
        """

    def read(self, announcement: PolicyVersion, start: int, length: int) -> memoryview:
        """A part of the artifact, not verified; raises as `size`."""

    def close(self) -> None:
        """Let go of the connections."""


class KafkaPolicyFeed:
    """Reads the control topics without a group: every robot sees every announcement. Implements `PolicyFeed`."""

    def __init__(self, settings: Settings, robot_id: str) -> None:
        self._reader = LogReader(settings.kafka, f"{robot_id}-policy-inbox")
        self._registry = Registry(settings.registry)
        self._store = ObjectStore(settings.s3)
        self._caught_up = False
        self._assigned = False
        self._heard_all = False
        self._places: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}

    def poll(self, timeout: float) -> list[Heard]:
        """New announcements. See `PolicyFeed`."""
        try:
            if not self._caught_up:
                rollouts = all_partitions(self._reader, [POLICY_ROLLOUTS])
                heard = self._take(self._reader.read_to_end(rollouts, _CATCH_UP_SECONDS))
                self._caught_up = True
                return heard
            if not self._assigned:
                topics = [POLICY_ROLLOUTS, POLICY_VERSIONS]
                self._places = all_partitions(self._reader, topics)
                self._reader.assign(self._places | self._positions)
                self._assigned = True
            heard = self._take(self._reader.consume(100, timeout))
            versions = {place for place in self._places if place[0] == POLICY_VERSIONS}  # rollouts came first
            self._heard_all = self._heard_all or versions <= self._reader.ends.keys()
            return heard
        except InfraError as error:
            # The reader is past what is not decoded: the next call reads on from what the last good one returned.
            self._assigned = False
            if isinstance(error, OffsetsExpired):
                # A topic was made anew: read it from its new beginning.
                self._positions, self._caught_up, self._heard_all = {}, False, False
            raise

    def heard_all(self) -> bool:
        """Whether all there was has been heard. See `PolicyFeed`."""
        return self._heard_all

    def size(self, announcement: PolicyVersion) -> int:
        """Bytes of the artifact. See `PolicyFeed`."""
        return self._store.size(self._store.key(announcement.artifact_uri))

    def read(self, announcement: PolicyVersion, start: int, length: int) -> memoryview:
        """A part of the artifact. See `PolicyFeed`."""
        return self._store.get_range(self._store.key(announcement.artifact_uri), start, length)

    def close(self) -> None:
        """Let go of the connections."""
        self._reader.close()

    def _take(self, messages: Iterable[Message]) -> list[Heard]:
        taken = list(messages)
        heard = [self._decode(message) for message in taken if message.value() is not None]
        for message in taken:
            place = (str(message.topic()), int(message.partition() or 0))
            self._positions[place] = int(message.offset() or 0) + 1
        return heard

    def _decode(self, message: Message) -> Heard:
        key, offset = record_key(message), int(message.offset() or 0)
        kind = PolicyRollout if message.topic() == POLICY_ROLLOUTS else PolicyVersion
        try:
            announced = announced_in(message, kind, self._registry.schema_of)
        except SchemaError as error:
            _log.error("policy_announcement_undecodable", key=key, offset=offset, error=str(error))
            return Heard(key, offset, None, str(error))
        return Heard(key, offset, announced)  # type: ignore[arg-type]
