"""The Avro files and the Python classes say the same, and nothing is left over on either side."""

from __future__ import annotations

import json
import re
import types
import typing
from enum import StrEnum
from typing import Any, get_args, get_origin

import pytest
from pydantic import AwareDatetime, BaseModel

from schemas import codec, events
from schemas.base import Int32, Int64
from schemas.codec import AVRO_DIR
from schemas.events import EVENTS, Event
from schemas.topics import TOPICS

SCHEMAS = [schema for record in sorted(EVENTS) for schema in codec.versions(record)]


def test_no_schema_no_class_and_no_topic_is_an_orphan() -> None:
    files = {path.name for path in AVRO_DIR.iterdir()}
    assert {name for name in files if not re.fullmatch(r"[a-z_]+\.v[1-9]\d*\.avsc", name)} == set()
    assert {name.split(".")[0] for name in files} == set(EVENTS)
    assert {topic.event for topic in TOPICS.values() if topic.event} == set(EVENTS)
    assert set(EVENTS.values()) == {
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, Event) and "record" in vars(value)
    }


@pytest.mark.parametrize("record", sorted(EVENTS))
def test_versions_count_up_from_one(record: str) -> None:
    found = [schema.version for schema in codec.versions(record)]
    assert found == list(range(1, len(found) + 1))


@pytest.mark.parametrize("schema", SCHEMAS, ids=repr)
def test_every_record_enum_and_field_is_documented(schema: codec.AvroSchema) -> None:
    undocumented = [
        where for where, node in _nodes(json.loads(schema.text)) if not str(node.get("doc", "")).strip()
    ]
    assert undocumented == []


@pytest.mark.parametrize("schema", SCHEMAS, ids=repr)
def test_an_optional_field_may_be_left_out_and_has_null_first(schema: codec.AvroSchema) -> None:
    """Avro takes a default from the first branch; without one a later reader cannot read older bytes."""
    for where, node in _nodes(json.loads(schema.text)):
        if isinstance(node.get("type"), list) and "null" in node["type"]:
            assert node["type"][0] == "null", where
            assert "default" in node, where
            assert node["default"] is None, where


@pytest.mark.parametrize("record", sorted(EVENTS))
def test_the_newest_schema_has_the_fields_types_and_defaults_of_its_class(record: str) -> None:
    avro = json.loads(codec.latest(record).text)
    assert avro["namespace"] == "sop"
    assert re.sub(r"(?<!^)(?=[A-Z])", "_", avro["name"]).lower() == record
    _assert_same_record(avro, EVENTS[record], {})


def test_classes_that_travel_are_frozen_closed_and_explained() -> None:
    for name, value in vars(events).items():
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == events.__name__:
            assert value.model_config.get("frozen"), name
            assert value.model_config.get("extra") == "forbid", name


def _nodes(node: Any, where: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Records, enums and fields of a schema, with their path."""
    if isinstance(node, list):
        return [found for branch in node for found in _nodes(branch, where)]
    if not isinstance(node, dict):
        return []
    if "fields" in node:
        here = f"{where}/{node['name']}"
        fields = node["fields"]
        inner = [(f"{here}.{field['name']}", field) for field in fields]
        deeper = [found for field in fields for found in _nodes(field["type"], f"{here}.{field['name']}")]
        return [(here, node), *inner, *deeper]
    if node["type"] == "enum":
        return [(f"{where}/{node['name']}", node)]
    return _nodes(node.get("items", node["type"]), where)


def _assert_same_record(avro: dict[str, Any], model: type[BaseModel], named: dict[str, Any]) -> None:
    assert avro["name"] == model.__name__
    fields = {field["name"]: field for field in avro["fields"]}
    assert fields.keys() == model.model_fields.keys(), avro["name"]
    hints = typing.get_type_hints(model, vars(events), include_extras=True)
    for name, field in fields.items():
        where = f"{avro['name']}.{name}"
        _assert_same_type(field["type"], hints[name], named, where)
        if "default" in field:
            default = model.model_fields[name].default
            default = list(default) if isinstance(default, tuple) else default  # JSON has no tuples
            assert default == field["default"], where
            assert type(default) is type(field["default"]), where


def _assert_same_type(avro: Any, hint: Any, named: dict[str, Any], where: str) -> None:
    if isinstance(avro, str) and avro in named:
        avro = named[avro]
    if isinstance(avro, list):
        assert get_origin(hint) in (types.UnionType, typing.Union), where
        branches = [branch for branch in get_args(hint) if branch is not type(None)]
        others = [branch for branch in avro if branch != "null"]
        assert ("null" in avro) == (type(None) in get_args(hint)), where
        assert len(branches) == len(others), where
        for branch, other in zip(branches, others, strict=True):
            _assert_same_type(other, branch, named, where)
    elif isinstance(avro, str):
        expected = {"string": str, "bytes": bytes, "boolean": bool, "float": float, "double": float}
        assert hint == (expected | {"int": Int32, "long": Int64})[avro], where
    elif avro["type"] == "array":
        assert get_origin(hint) is tuple, where
        element, rest = get_args(hint)
        assert rest is Ellipsis, where
        _assert_same_type(avro["items"], element, named, where)
    elif avro["type"] == "enum":
        named[avro["name"]] = avro
        assert issubclass(hint, StrEnum), where
        assert avro["name"] == hint.__name__, where
        assert sorted(avro["symbols"]) == sorted(hint), where
    elif avro["type"] == "record":
        named[avro["name"]] = avro
        _assert_same_record(avro, hint, named)
    else:
        assert avro == {"type": "long", "logicalType": "timestamp-micros"}, where
        assert hint == AwareDatetime, where
