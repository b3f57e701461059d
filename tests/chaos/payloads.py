"""One announcement against its object, and the object against what the robot sent, byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from tests.chaos.labels import excluded_of, success_of
from tests.chaos.ledger import Copies
from tests.chaos.robot import CAMERA, Event

Objects = dict[str, tuple[str, int, pa.Table]]
Found = list[tuple[str, str]]


def payload_anomalies(announced: dict[str, Any], sent: list[Copies], objects: Objects) -> Found:
    """What is wrong with the newest revision of an episode, as (kind, text)."""
    name = f"episode {announced['episode_id']} revision {announced['revision']}"
    there = objects.get(announced["payload_uri"])
    if there is None:
        return [("lost write", f"{name}: no object at {announced['payload_uri']}")]
    digest, size, table = there
    out: Found = []
    if (digest, size) != (announced["payload_sha256"], announced["payload_bytes"]):
        out.append(("wrong payload", f"{name}: its object has another digest or size than announced"))
    facts = json.loads((table.schema.metadata or {})[b"sop.episode"])
    for field in (
        "episode_id",
        "revision",
        "robot_id",
        "boot_epoch",
        "step_count",
        "end",
        "closed_by",
        "sequences",
    ):
        if facts[field] != announced[field]:
            out.append(("wrong payload", f"{name}: {field} in the file's metadata is not the announcement's"))
    listed = {number for part in announced["sequences"] for number in range(part["first"], part["last"] + 1)}
    events = {c.event.sequence: c.event for c in sent if c.event.sequence in listed}
    steps = {number: event for number, event in events.items() if event.topic == "robot-steps"}
    out += _compare(name, table, steps)
    out += _ends(name, announced, list(events.values()))
    out += _frames(name, announced, table, list(events.values()))
    if {label["label_id"] for label in facts["labels"]} != {label["label_id"] for label in announced["labels"]}:
        out.append(("wrong payload", f"{name}: labels in the file's metadata are not the announcement's"))
    if stray := listed - events.keys():
        out.append(("stray", f"{name} lists sequences that nobody sent: {sorted(stray)[:5]}"))
    if announced["step_count"] != len(steps):
        out.append(("wrong payload", f"{name}: step_count {announced['step_count']}, listed {len(steps)}"))
    return out


def _compare(name: str, table: pa.Table, steps: dict[int, Event]) -> Found:
    """Rows of the file against the steps that were sent."""
    rows = table.column("sequence").to_pylist()
    out: Found = [
        ("duplicate", f"{name}: step {number} is in its payload {count} times")
        for number, count in Counter(rows).items()
        if count > 1
    ]
    out += [
        ("lost write", f"{name}: step {number} is listed and not in its payload")
        for number in steps.keys() - set(rows)
    ]
    out += [("stray", f"{name}: row {number} is no listed step") for number in set(rows) - steps.keys()]
    columns = {
        column: table.column(column).to_pylist() for column in ("index", "actor", "policy_version", "reward")
    }
    columns["captured_at"] = table.column("captured_at").cast(pa.int64()).to_pylist()
    columns |= {column: _vectors(table.column(column)) for column in ("state", "action", "proposed_action")}
    if columns["index"] != sorted(columns["index"]):
        out.append(("non-monotonic", f"{name}: rows are not in the order of their index"))
    for at, number in enumerate(rows):
        if number not in steps:
            continue
        wrong = [column for column, values in columns.items() if values[at] != steps[number].datum[column]]
        if wrong:
            out.append(("wrong payload", f"{name}: step {number} differs from what was sent in {wrong}"))
    return out


def _vectors(column: pa.ChunkedArray) -> list[bytes | None]:
    """Lists of float32 as the little-endian bytes that travelled."""
    return [None if value is None else np.array(value, "<f4").tobytes() for value in column.to_pylist()]


def _ends(name: str, announced: dict[str, Any], events: list[Event]) -> Found:
    """End and success are the robot's own, if its end was seen; else it was truncated. Labels come after."""
    bodies = [event.datum["body"] for event in events if "body" in event.datum]
    ended = next((body for kind, body in bodies if kind == "sop.EpisodeEnded"), None)
    end, recorded = (ended["end"], ended["success"]) if ended else ("TRUNCATED", None)
    labels = announced["labels"]
    wanted = (end, recorded, success_of(labels, recorded), excluded_of(labels))
    out: Found = []
    found = tuple(announced[field] for field in ("end", "recorded_success", "success", "excluded"))
    if found != wanted:
        out.append(("wrong payload", f"{name}: ended {found}; sent and labelled {wanted}"))
    begun = sum(event.topic == "robot-interventions" and event.datum["phase"] == "BEGIN" for event in events)
    both = {event.datum["intervention_id"] for event in events if event.topic == "robot-interventions"}
    if len(announced["interventions"]) != len(both) or begun > len(both):
        out.append(("wrong payload", f"{name}: {len(announced['interventions'])} interventions, sent {len(both)}"))
    return out


def _frames(name: str, announced: dict[str, Any], table: pa.Table, events: list[Event]) -> Found:
    """For each step the frame that its camera stored of it, and none where it stored none."""
    bodies = [
        event.datum["body"][1] for event in events if event.datum.get("body", ("",))[0] == "sop.FramesRecorded"
    ]
    segments = [segment for body in bodies for segment in body["segments"]]
    frames: dict[int, dict[str, Any]] = {}
    for segment in segments:
        kept = {field: segment[field] for field in ("uri", "sha256", "codec", "data")}
        steps = [step for part in segment["steps"] for step in range(part["first"], part["last"] + 1)]
        frames |= {step: {**kept, "index": at} for at, step in enumerate(steps)}
    column = f"frame_{CAMERA}"
    indices = table.column("index").to_pylist()
    found = table.column(column).to_pylist() if column in table.column_names else [None] * len(indices)
    out: Found = []
    if wrong := [at for at, frame in zip(indices, found, strict=True) if frame != frames.get(at)]:
        out.append(("wrong payload", f"{name}: frames of steps {wrong[:5]} are not those that were recorded"))
    counted = sum(at in frames for at in indices), sum(segment["uri"] is not None for segment in segments)
    if (announced["frame_count"], announced["frame_objects"]) != counted:
        said = announced["frame_count"], announced["frame_objects"]
        out.append(("wrong payload", f"{name}: says (frames, objects) {said}, recorded {counted}"))
    return out
