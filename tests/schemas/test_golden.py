"""Stored bytes stay readable, and today's code still writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas import codec, events
from schemas.errors import UndecodableEvent
from schemas.events import EVENTS, EpisodeEnded, Event, Feature
from tests.schemas import golden
from tests.schemas.golden import EXAMPLES, Example


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_stored_bytes_decode_to_the_stored_event(example: Example) -> None:
    assert codec.decode(type(example.event), example.body, example.schema) == example.event


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_event_encodes_to_the_stored_bytes_of_the_newest_version(example: Example) -> None:
    if example.version != codec.latest(example.record).version:
        pytest.skip("an older version's bytes are read, never written")
    assert codec.encode(example.event) == example.body


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_stored_event_survives_json(example: Example) -> None:
    assert type(example.event).model_validate_json(example.event.model_dump_json()) == example.event


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_body_cut_off_anywhere_is_refused(example: Example) -> None:
    for length in range(len(example.body)):
        with pytest.raises(UndecodableEvent):
            codec.decode(type(example.event), example.body[:length], example.schema)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_body_with_a_byte_too_many_is_refused(example: Example) -> None:
    with pytest.raises(UndecodableEvent, match="1 bytes too many"):
        codec.decode(type(example.event), example.body + b"\0", example.schema)


def test_every_file_under_examples_is_an_example_with_its_bytes() -> None:
    files = [path for path in golden.EXAMPLES_DIR.rglob("*") if path.is_file()]
    assert sorted(files) == golden.paths()
    assert [golden.load(path) for path in golden.paths()] == EXAMPLES


def test_every_version_of_every_record_has_several_examples_and_no_example_is_an_orphan() -> None:
    wanted = {(record, schema.version) for record in EVENTS for schema in codec.versions(record)}
    found = [(example.record, example.version) for example in EXAMPLES]
    assert set(found) == wanted
    assert {key for key in wanted if found.count(key) < 2} == set()


def test_examples_show_every_symbol_every_branch_and_every_absence() -> None:
    """What a consumer is tried on must hold all that the wire can hold."""
    seen: set[tuple[type[BaseModel], str, object]] = set()
    for example in EXAMPLES:
        for model in _models(example.event):
            seen |= {(type(model), name, _kind(value)) for name, value in model}
    wanted = {
        (model, name, kind)
        for model in _model_types()
        for name, field in model.model_fields.items()
        for kind in _kinds(field)
    }
    assert wanted > {(EpisodeEnded, "success", None), (EpisodeEnded, "success", True), (Feature, "names", ())}
    assert wanted - seen == set()


def test_filling_in_leaves_what_is_stored_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = (e for e in EXAMPLES if e.version == codec.latest(e.record).version)
    written = next(newest)
    original = golden.EXAMPLES_DIR / written.record / f"v{written.version}" / f"{written.name}.json"
    record = original.parts[-3]
    folder = tmp_path / record / f"v{codec.latest(record).version}"
    folder.mkdir(parents=True)
    (folder / "old.json").write_text(original.read_text())
    (folder / "new.json").write_text(json.dumps({"event": json.loads(original.read_text())["event"]}))
    monkeypatch.setattr(golden, "EXAMPLES_DIR", tmp_path)

    assert golden.fill_in() == [folder / "new.json"]
    assert (folder / "old.json").read_text() == original.read_text() == (folder / "new.json").read_text()
    assert golden.fill_in() == []


def _models(value: object) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for _, item in value:
            yield from _models(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _models(item)


def _model_types() -> list[type[BaseModel]]:
    found = [value for value in vars(events).values() if isinstance(value, type) and issubclass(value, BaseModel)]
    return [m for m in found if m.model_fields and (m in EVENTS.values() or not issubclass(m, Event))]


def _kinds(field: FieldInfo) -> set[object]:
    """What a field can look like, as far as readers must tell it apart."""
    hint = field.annotation
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return set(hint)
    if hint is bool:
        return {True, False}
    if hint == bool | None:
        return {True, False, None}
    for part in get_args(hint):
        if isinstance(part, type) and issubclass(part, StrEnum):
            return {None, *part}
    if field.default in (None, ()):
        return {field.default, "something"}
    return {"something"}


def _kind(value: object) -> object:
    plain = isinstance(value, StrEnum | bool) or value in (None, ())
    return value if plain else "something"
