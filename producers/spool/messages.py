"""What robot and publisher say to each other, one JSON object a line. Secrets travel here and nowhere else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr

from infra.kafka import OutRecord
from infra.settings import KafkaSettings, RegistrySettings, RobotSettings, S3Settings
from producers.clock_offset import ClockOffset
from producers.outbox import Item
from producers.spool.publisher import Status


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    def line(self) -> str:
        """As it travels."""
        return json.dumps(self.model_dump(), default=_plain) + "\n"


class Begin(_Message):
    """The first line: whose spool, and where to."""

    robot_id: str
    boot_epoch: int
    robot_pid: int
    directory: str
    kafka: KafkaSettings
    registry: RegistrySettings
    robot: RobotSettings
    s3: S3Settings


class Offer(_Message):
    """A heartbeat: written with the newest schema, which both sides know, as they run the same code."""

    topic: str
    key: bytes
    traceparent: bytes
    body: bytes

    @classmethod
    def of(cls, entry: Item) -> Offer:
        """An item, for the other side."""
        return cls(topic=entry.topic, key=entry.key, traceparent=entry.traceparent, body=entry.body)

    def line(self) -> str:
        """As it travels."""
        return self.model_dump_json() + "\n"

    def record(self) -> OutRecord:
        """For Kafka; its value is not framed."""
        return OutRecord(self.topic, self.key, self.body, (("traceparent", self.traceparent),))


def status_line(status: Status) -> str:
    """As it travels."""
    return json.dumps(dataclasses.asdict(status)) + "\n"


def read_status(line: str) -> Status:
    """As `status_line` wrote it.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    fields = json.loads(line)
    offset, errors = fields.pop("clock_offset"), tuple(fields.pop("errors"))
    return Status(**fields, errors=errors, clock_offset=None if offset is None else ClockOffset(**offset))


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
