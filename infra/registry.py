"""The schema registry: `sop deploy` registers, robots look ids up, consumers look schemas up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import httpx2 as httpx
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from infra.errors import AccessRefused, DeploymentConflict, RegistryUnavailable
from infra.settings import RegistrySettings
from schemas.codec import AvroSchema, versions
from schemas.errors import UnknownSchema
from schemas.topics import TOPICS, Topic

_NOT_FOUND = (404, 40401, 40402, 40403)
_REFUSED = (401, 403)


@dataclass
class Registry:
    """Schema ids by topic and schemas by id, cached: neither ever changes once registered.

    Raises (all methods):
        RegistryUnavailable: no answer in time.
    """

    settings: RegistrySettings
    _ids: dict[tuple[str, int], int] = field(default_factory=dict)
    _schemas: dict[int, AvroSchema] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = {"url": self.settings.url, "timeout": self.settings.timeout, "max.retries": 1}
        if self.settings.username is not None and self.settings.password is not None:
            config["basic.auth.user.info"] = (
                f"{self.settings.username}:{self.settings.password.get_secret_value()}"
            )
        self._client = SchemaRegistryClient(config)

    def ping(self) -> None:
        """Ask something cheap.

        Raises:
            AccessRefused: it answers, and lets us in under no such name and password.
        """
        try:
            self._client.get_subjects()
        except SchemaRegistryError as error:
            if error.http_status_code in _REFUSED:
                who = f"user {self.settings.username!r}" if self.settings.username else "whoever gives no name"
                raise AccessRefused(
                    f"the schema registry at {self.settings.url} refuses {who}: set SOP_REGISTRY__USERNAME and "
                    f"SOP_REGISTRY__PASSWORD"
                ) from error
            raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
        except (httpx.HTTPError, OSError) as error:
            raise RegistryUnavailable(f"{self.settings.url}: {error}") from error

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        """Id under which `sop deploy` registered this schema for a topic.

        Raises:
            UnknownSchema: it was never registered there.
        """
        key = (topic, schema.version)
        if key not in self._ids:
            subject = TOPICS[topic].subject
            try:
                found = self._client.lookup_schema(subject, Schema(schema.text, "AVRO"))
            except SchemaRegistryError as error:
                if error.http_status_code == 404 or error.error_code in _NOT_FOUND:
                    raise UnknownSchema(
                        f"{schema!r} is not registered for {topic}; run `sop deploy` with this version of the code"
                    ) from error
                raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
            except (httpx.HTTPError, OSError) as error:
                raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
            self._ids[key] = int(found.schema_id or 0)
        return self._ids[key]

    def schema_of(self, schema_id: int, record: str) -> AvroSchema:
        """Schema that a record was written with.

        Raises:
            UnknownSchema: no schema has this id, or it is another record's.
        """
        schema = self.written_with(schema_id)
        if schema.record != record:
            raise UnknownSchema(f"schema id {schema_id} is a {schema.record}, not a {record}")
        return schema

    def written_with(self, schema_id: int) -> AvroSchema:
        """Schema of this id, whatever record it is of.

        Raises:
            UnknownSchema: no schema of ours has this id.
        """
        if schema_id not in self._schemas:
            try:
                text = self._client.get_schema(schema_id).schema_str
            except SchemaRegistryError as error:
                if error.http_status_code == 404 or error.error_code in _NOT_FOUND:
                    raise UnknownSchema(f"schema id {schema_id} is not in the registry") from error
                raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
            except (httpx.HTTPError, OSError) as error:
                raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
            self._schemas[schema_id] = _parse(schema_id, text or "")
        return self._schemas[schema_id]

    def deploy(self, topic: Topic) -> int:
        """Register every version of a topic's schema, oldest first; the newest id.

        Raises:
            DeploymentConflict: the registry finds a version incompatible with those before it.
        """
        if topic.event is None:
            raise ValueError(f"{topic.name} carries raw bytes")
        newest = -1
        try:
            self._client.set_compatibility(subject_name=topic.subject, level="BACKWARD_TRANSITIVE")
        except (SchemaRegistryError, httpx.HTTPError, OSError) as error:
            raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
        for schema in versions(topic.event):
            try:
                newest = self._client.register_schema(topic.subject, Schema(schema.text, "AVRO"))
            except SchemaRegistryError as error:
                if error.http_status_code == 409:
                    raise DeploymentConflict(
                        f"{schema!r} is not BACKWARD_TRANSITIVE compatible on {topic.subject}: {error}"
                    ) from error
                raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
            except (httpx.HTTPError, OSError) as error:
                raise RegistryUnavailable(f"{self.settings.url}: {error}") from error
        return newest


def _parse(schema_id: int, text: str) -> AvroSchema:
    """A registered schema as ours: the record's name in snake case names it."""
    try:
        name = str(json.loads(text)["name"])
        record = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
        schema = AvroSchema(record, 0, text)
        if (schema.parsed["type"], schema.parsed["name"]) != ("record", f"sop.{name}"):
            raise ValueError(f"{schema.parsed['type']} {schema.parsed['name']} is none of ours")
        return schema
    except Exception as error:  # any text may have been registered by others
        raise UnknownSchema(f"schema id {schema_id} is not an Avro record: {error!r}") from error
