"""The registry: ids that never change, schemas that must agree, and records that are not ours."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from pydantic import SecretStr

from infra import registry as module
from infra.errors import AccessRefused, DeploymentConflict, RegistryUnavailable
from infra.local.stack import Stack
from infra.registry import Registry
from infra.settings import RegistrySettings, Settings
from schemas import codec
from schemas.codec import AvroSchema
from schemas.errors import UnknownSchema
from schemas.topics import TOPICS, Topic


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings.registry)


@pytest.fixture
def topic(name: str, monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A topic whose subject nobody knows yet; it carries steps."""
    made = TOPICS["robot-steps"].model_copy(update={"name": name})
    monkeypatch.setitem(TOPICS, name, made)
    return made


def step_with(version: int, *fields: dict[str, Any], without: str = "") -> AvroSchema:
    """A later version of step."""
    schema = json.loads(codec.latest("step").text)
    kept = [field for field in schema["fields"] if field["name"] != without]
    return AvroSchema("step", version, json.dumps({**schema, "fields": [*kept, *fields]}))


def test_a_schema_registered_twice_keeps_its_id_and_is_found_from_both_sides(
    registry: Registry, topic: Topic
) -> None:
    newest = codec.latest("step")
    with pytest.raises(UnknownSchema, match=rf"step v1\) is not registered for {topic.name}; run `sop deploy`"):
        registry.id_of(topic.name, newest)
    number = registry.deploy(topic)
    assert registry.deploy(topic) == number
    assert registry.id_of(topic.name, newest) == number
    found = registry.schema_of(number, "step")
    assert (found.record, found.parsed["name"]) == ("step", "sop.Step")
    assert json.loads(found.text)["fields"] == json.loads(newest.text)["fields"]


def test_a_compatible_version_is_added_and_an_incompatible_one_refused(
    registry: Registry, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BACKWARD_TRANSITIVE: the newest must read every one before it, not only the last."""
    first = codec.latest("step")
    second = step_with(2, {"name": "torque", "type": "double", "default": 0.0, "doc": "."}, without="reward")
    monkeypatch.setattr(module, "versions", lambda _record: (first, second))
    newest = registry.deploy(topic)
    assert registry.id_of(topic.name, second) == newest
    assert registry.id_of(topic.name, first) != newest

    client = SchemaRegistryClient({"url": registry.settings.url})
    for bad in (
        step_with(3, {"name": "torque", "type": "double", "doc": "."}),
        step_with(3, {"name": "torque", "type": "string", "default": "", "doc": "."}, without="reward"),
    ):
        monkeypatch.setattr(module, "versions", lambda _record, bad=bad: (first, second, bad))
        with pytest.raises(DeploymentConflict, match=rf"step v3\) is not BACKWARD_TRANSITIVE .* {topic.subject}"):
            registry.deploy(topic)
    assert len(client.get_versions(topic.subject)) == 2, "nothing was registered"


def test_a_topic_of_raw_bytes_has_no_schema_to_register(registry: Registry) -> None:
    with pytest.raises(ValueError, match="dead-letters carries raw bytes"):
        registry.deploy(TOPICS["dead-letters"])


@pytest.mark.parametrize("number", [0, 999_999, 2**31 - 1, 2**31, 2**32 - 1])
def test_an_id_that_nobody_registered_is_unknown_and_not_an_outage(registry: Registry, number: int) -> None:
    """Else one record of nonsense would hold its partition for ever."""
    with pytest.raises(UnknownSchema, match=f"schema id {number} is not in the registry"):
        registry.schema_of(number, "step")


def test_a_schema_of_another_record_is_refused(registry: Registry, topic: Topic) -> None:
    number = registry.deploy(topic)
    with pytest.raises(UnknownSchema, match="is a step, not a heartbeat"):
        registry.schema_of(number, "heartbeat")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("AVRO", '{"type": "record", "name": "Stranger", "fields": []}'),
        ("AVRO", '{"type": "enum", "name": "Step", "symbols": ["A"]}'),
        ("AVRO", '"string"'),
        ("AVRO", '["null", "string"]'),
        ("AVRO", '{"type": "record", "name": "Step", "namespace": "else", "fields": []}'),
        ("JSON", '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'),
        ("PROTOBUF", 'syntax = "proto3"; message Step { string a = 1; }'),
    ],
)
def test_a_schema_that_others_registered_is_unknown_to_us(
    registry: Registry, name: str, kind: str, text: str
) -> None:
    client = SchemaRegistryClient({"url": registry.settings.url})
    number = client.register_schema(f"{name}-foreign", Schema(text, kind))
    with pytest.raises(UnknownSchema, match=f"schema id {number} is "):
        registry.schema_of(number, "step")


def test_what_was_looked_up_once_needs_no_registry_and_the_rest_is_unavailable(
    stack: Stack, settings: Settings, topic: Topic
) -> None:
    before = Registry(settings.registry)
    before.deploy(topic)
    number = before.id_of(topic.name, codec.latest("step"))
    known = before.schema_of(number, "step")
    hasty = settings.registry.model_copy(update={"timeout": 0.2})
    registry = Registry(hasty, before._ids, before._schemas)
    stack.pause("registry")
    try:
        assert registry.id_of(topic.name, codec.latest("step")) == number
        assert registry.schema_of(number, "step") is known
        for call in (
            registry.ping,
            lambda: registry.schema_of(number + 1, "step"),
            lambda: registry.id_of("robot-steps", step_with(9)),
            lambda: registry.deploy(topic),
        ):
            with pytest.raises(RegistryUnavailable, match=settings.registry.url):
                call()
    finally:
        stack.resume("registry")
    before.ping()


class Guarded(BaseHTTPRequestHandler):
    """A registry that answers those who know its password."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Basic {b64encode(b'robots:hush:hush').decode()}"
        body = b"[]" if known else b'{"error_code": 401, "message": "who are you?"}'
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def test_a_registry_with_a_password_lets_in_who_knows_it_and_nobody_reads_it_anywhere() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        Registry(RegistrySettings(url=url, username="robots", password=SecretStr("hush:hush"))).ping()
        wrong = RegistrySettings(url=url, username="robots", password=SecretStr("rush"))
        for settings, who in ((wrong, "user 'robots'"), (RegistrySettings(url=url), "whoever gives no name")):
            with pytest.raises(AccessRefused, match=f"{url} refuses {who}: set SOP_REGISTRY__USERNAME") as refused:
                Registry(settings).ping()
            assert "rush" not in f"{refused.value}{settings}"
        server.shutdown()


def test_a_registry_that_is_down_is_unavailable(settings: Settings) -> None:
    down = Registry(settings.registry.model_copy(update={"url": "http://127.0.0.1:1"}))
    for call in (down.ping, lambda: down.schema_of(1, "step"), lambda: down.deploy(TOPICS["robot-steps"])):
        with pytest.raises(RegistryUnavailable):
            call()
