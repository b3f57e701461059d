"""The golden examples under `schemas/examples/<record>/v<N>/`: events beside the bytes that they travel as.

A file holds `{"event": {...}, "avro": "..."}`: the event as pydantic's JSON (bytes as base64, URL-safe alphabet),
and the hex of the Avro body, written with version N of the record's schema. Stored bytes never change: robots that
write them may be in the field for years. For a new version, write files with the event alone, then let

    python -m tests.schemas.golden

fill in what is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from schemas import codec
from schemas.codec import AvroSchema
from schemas.events import Event

EXAMPLES_DIR = Path(codec.__file__).parent / "examples"


@dataclass(frozen=True)
class Example:
    """One file, read: an event and the body that `version` of its record's schema wrote."""

    record: str
    version: int
    name: str
    event: Event
    body: bytes

    @property
    def schema(self) -> AvroSchema:
        """The schema that the body was written with."""
        return next(schema for schema in codec.versions(self.record) if schema.version == self.version)

    def __str__(self) -> str:
        return f"{self.record}-v{self.version}-{self.name}"


def load(path: Path) -> Example:
    """Read one example.

    Raises:
        KeyError: its folder is no record's, or it lacks a part.
        pydantic.ValidationError: the event is none of its record.
    """
    record, folder = path.parts[-3], path.parts[-2]
    document = json.loads(path.read_text())
    if document.keys() != {"event", "avro"}:
        raise KeyError(f"{path} holds {sorted(document)}, not event and avro")
    event = codec.event_type(record).model_validate_json(json.dumps(document["event"]))
    return Example(record, int(folder.removeprefix("v")), path.stem, event, bytes.fromhex(document["avro"]))


def paths() -> list[Path]:
    """Every example's file."""
    return sorted(EXAMPLES_DIR.glob("*/v*/*.json"))


EXAMPLES = [load(path) for path in paths() if "avro" in json.loads(path.read_text())]


def fill_in() -> list[Path]:
    """Add the bytes to examples of newest versions that have none yet; the files that were changed."""
    changed = []
    for path in paths():
        document = json.loads(path.read_text())
        record = path.parts[-3]
        if "avro" in document or path.parts[-2] != f"v{codec.latest(record).version}":
            continue
        event = codec.event_type(record).model_validate_json(json.dumps(document["event"]))
        document = {"event": json.loads(event.model_dump_json()), "avro": codec.encode(event).hex()}
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        changed.append(path)
    return changed


if __name__ == "__main__":
    for written in fill_in():
        print(written)  # noqa: T201
