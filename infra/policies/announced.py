"""Announcements on the control topics as they were sent, so that their signatures can be checked."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Generic, TypeVar

from infra.decoder import SchemaLookup
from infra.kafka import LogReader, Message
from infra.kafka.log_reader import all_partitions
from infra.policies.errors import SignatureRefused
from infra.policies.keys import Keyring
from infra.policies.rollout import require_sound
from infra.registry import Registry
from infra.settings import Settings
from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import SchemaError, UndecodableEvent
from schemas.events import PolicyRollout, PolicyVersion, SignedEvent
from schemas.topics import TOPICS

S = TypeVar("S", bound=SignedEvent)

_SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Announced(Generic[S]):
    """One record: the key that it was sent under, what it says, its Avro bytes, and the schema of these."""

    key: str
    event: S
    body: bytes
    writer: AvroSchema

    def require(self, keyring: Keyring) -> None:
        """Believe it, or say why not.

        Raises:
            SignatureRefused: not signed by a pinned key, altered, or sent as something else than it is.
            RolloutRefused: a rollout that makes no sense.
        """
        keyring.verify(self.event, self.body, self.writer)
        # The key decides which records compaction keeps, and no signature covers it.
        if self.key != key_of(self.event):
            raise SignatureRefused(f"it was sent under the key {self.key!r}, and is {key_of(self.event)!r}")
        if isinstance(self.event, PolicyRollout):
            require_sound(self.event)

    def to_json(self) -> str:
        """For a file; `announced_from_json` reads it."""
        body = base64.b64encode(self.body).decode()
        return json.dumps({"key": self.key, "record": self.event.record, "schema": self.writer.text, "body": body})


@dataclass(frozen=True, slots=True)
class Undecodable:
    """One record that announces nothing: the key that it was sent under, where it is, and what is wrong."""

    key: str
    place: str
    why: str

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.place}: {self.why}"


def key_of(event: SignedEvent) -> str:
    """Key that an announcement is sent under."""
    if isinstance(event, PolicyVersion):
        return f"{event.policy}/{event.version}"
    if isinstance(event, PolicyRollout):
        return event.policy
    raise TypeError(f"{type(event).__name__} is no announcement")


def announced_from_json(text: str, event_type: type[S]) -> Announced[S]:
    """What `Announced.to_json` wrote; not verified.

    Raises:
        UndecodableEvent: it did not.
    """
    try:
        document = json.loads(text)
        writer = AvroSchema(document["record"], 0, document["schema"])
        body = base64.b64decode(document["body"], validate=True)
        key = str(document["key"])
    except Exception as error:  # whatever a disk may hold
        raise UndecodableEvent(f"not an announcement's file: {error!r}") from error
    return Announced(key, codec.decode(event_type, body, writer), body, writer)


def announced_in(message: Message, event_type: type[S], schema_of: SchemaLookup) -> Announced[S]:
    """What a record announces; not verified.

    Raises:
        SchemaError: it holds no such event.
        RegistryUnavailable: the schema could not be looked up.
    """
    value = message.value()
    schema_id, body = codec.unframe(value if isinstance(value, bytes) else None)
    writer = schema_of(schema_id, event_type.record)
    return Announced(record_key(message), codec.decode(event_type, body, writer), body, writer)


def record_key(message: Message) -> str:
    """A record's key as text."""
    key = message.key()
    return key.decode(errors="replace") if isinstance(key, bytes) else key or ""


def read_announcements(
    settings: Settings, registry: Registry, topic: str, event_type: type[S], client_id: str
) -> list[Announced[S] | Undecodable]:
    """Everything on a control topic, in order and not verified.

    Raises:
        KafkaUnavailable, RegistryUnavailable, OffsetsExpired: it cannot be read now.
    """
    assert TOPICS[topic].event == event_type.record  # noqa: S101 - a slip of ours
    reader = LogReader(settings.kafka, client_id)
    try:
        messages = list(reader.read_to_end(all_partitions(reader, [topic]), _SILENCE_SECONDS))
    finally:
        reader.close()
    found: list[Announced[S] | Undecodable] = []
    for message in messages:
        if message.value() is None:
            continue
        try:
            found.append(announced_in(message, event_type, registry.schema_of))
        except SchemaError as error:
            key = record_key(message)
            found.append(Undecodable(key, f"{topic} {key!r} at {message.offset()}", str(error)))
    return found
