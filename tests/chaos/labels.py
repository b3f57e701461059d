"""What people say of episodes: labels as they are sent, and what must become of them.

A label is applied once, or a dead letter once. Which of both depends on whether somebody knew its episode in time;
but if the episode was announced before the label came, it must be applied.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.ledger import Copies, Ledger, Place
from tests.chaos.readings import Announcement, Letter
from tests.chaos.robot import BEGIN_US, DEAD, EITHER, LABELS, Event, Line

Found = list[tuple[str, str]]

UNKNOWN = "unknown_episode"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUCCESS = {"SUCCEEDED": True, "FAILED": False, "UNKNOWN": None}


# Sending.


def labels_of(chance: random.Random, episode: Event, others: list[Line]) -> list[Event]:
    """Some labels of an episode, some of them unusable. `episode` is any event of it."""
    kind = chance.random()
    label = _label(chance, episode)
    if kind < 0.55:
        more = [_label(chance, episode) for _ in range(chance.randrange(3))]
        return [label, *more]
    if kind < 0.7:  # said twice, in other words: the first of both counts
        again = _label(chance, episode)
        again.datum["label"] |= {"label_id": label.datum["label"]["label_id"], "reason": "said otherwise"}
        for event in (label, again):
            event.reasons, event.may_repeat = event.reasons | {"conflict"}, False
        return [label, again]
    label.fate, label.may_repeat = DEAD, False
    if kind < 0.8:
        label.datum["episode_id"] = _uuid7(chance, BEGIN_US // 1000)
        label.reasons = frozenset({UNKNOWN})
    elif kind < 0.85 and others:
        other = chance.choice(others)
        label.datum["robot_id"], label.key = other.robot_id, other.robot_id.encode()
        label.reasons = frozenset({UNKNOWN, "foreign_episode"})
    elif kind < 0.9:
        label.datum["label"]["label_id"] = chance.choice(["", "mine", str(uuid.UUID(int=7))])
        label.reasons = frozenset({"bad_id"})
    elif kind < 0.95:
        label.datum["label"]["labelled_at"] = chance.choice([-86_400_000_000, 7_900_000_000_000_000])
        label.reasons = frozenset({"bad_time"})
    else:
        label.spoil = chance.choice(["cut", "short", "noise", "other-schema"])
        label.reasons = frozenset({"undecodable", "unknown_schema"})
    return [label]


def _label(chance: random.Random, episode: Event) -> Event:
    at = BEGIN_US + chance.randrange(10**12)
    datum = {
        "episode_id": episode.episode_id,
        "robot_id": episode.datum["robot_id"],
        "label": {
            "label_id": _uuid7(chance, at // 1000),
            "author": "ann",
            "reason": "looked at it again",
            "labelled_at": at,
            "verdict": chance.choice([None, "SUCCEEDED", "FAILED", "UNKNOWN"]),
            "excluded": chance.choice([None, None, True, False]),
        },
    }
    reasons = frozenset({UNKNOWN})
    return Event(LABELS, datum, datum["robot_id"].encode(), episode.line, EITHER, reasons, counted=False)


def _uuid7(chance: random.Random, milliseconds: int) -> str:
    number = milliseconds << 80 | chance.getrandbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))


# Judging.


def label_anomalies(
    ledger: Ledger, newest: dict[str, Announcement], stream: list[Announcement], letters: dict[Place, list[Letter]]
) -> Found:
    """What is wrong with what became of labels, as (kind, text)."""
    out: Found = []
    first: dict[str, int] = {}
    for announced in stream:
        first.setdefault(announced.datum["episode_id"], announced.appended_ms)
    sent: dict[str, list[Copies]] = defaultdict(list)
    for copies in ledger.copies.values():
        if copies.event.topic == LABELS:
            sent[copies.event.episode_id].append(copies)
    for episode_id, announced in newest.items():
        out += _of_revision(announced, sent.get(episode_id, []))
    out += _lasting(stream)
    for episode_id, labels in sent.items():
        there = newest.get(episode_id)
        for copies in labels:
            event = copies.event
            applied = there is not None and any(_same(found, event) for found in there.datum["labels"])
            buried = [letters.get(place, []) for place in copies.places]
            dead = [letter for there_ in buried for letter in there_]
            # Each copy stands for itself: one may have come before anybody knew the episode, another after.
            if any(len(of_one) > 1 for of_one in buried) or (applied and all(buried)):
                out.append(
                    ("duplicate", f"{event!r} is applied ({applied}) and on dead-letters {len(dead)} times")
                )
            if applied and event.fate == DEAD:
                out.append(("stray", f"{event!r} cannot be used, and is applied"))
            if not applied and not all(buried):
                out.append(("lost write", f"{event!r} of {episode_id} is neither applied nor on dead-letters"))
            known = first.get(episode_id, max(copies.times)) < min(copies.times)
            if known and event.fate == EITHER and any(letter.reason == UNKNOWN for letter in dead):
                out.append(("lost write", f"{event!r}: its episode {episode_id} was known, and it was refused"))
    return out


def success_of(labels: list[dict[str, Any]], recorded: bool | None) -> bool | None:
    """What the latest label that says something of success says, else what the robot said."""
    said = [label for label in labels if label["verdict"] is not None]
    latest = max(said, key=lambda label: (label["labelled_at"], label["label_id"]), default=None)
    return _SUCCESS[latest["verdict"]] if latest else recorded


def excluded_of(labels: list[dict[str, Any]]) -> bool:
    """Whether the latest label that says something of it leaves the episode out."""
    said = [label for label in labels if label["excluded"] is not None]
    latest = max(said, key=lambda label: (label["labelled_at"], label["label_id"]), default=None)
    return bool(latest and latest["excluded"])


def _of_revision(announced: Announcement, sent: list[Copies]) -> Found:
    """Labels of a newest revision: each once, as it was sent, and within the offsets that it names."""
    name = f"episode {announced.datum['episode_id']} revision {announced.datum['revision']}"
    labels = announced.datum["labels"]
    counts = Counter(label["label_id"] for label in labels)
    out: Found = [
        ("duplicate", f"{name} has label {label_id} {n} times") for label_id, n in counts.items() if n > 1
    ]
    spans = {(s["topic"], s["partition"]): (s["first"], s["last"]) for s in announced.datum["source_offsets"]}
    for label in labels:
        same = [copies for copies in sent if _same(label, copies.event)]
        if not same:
            out.append(("stray", f"{name} has label {label['label_id']}, which nobody sent like that"))
            continue
        nowhere = (0, -1)
        near = [(spans.get(place[:2], nowhere), place[2]) for copies in same for place in copies.places]
        if not any(low <= offset <= high for (low, high), offset in near):
            out.append(("wrong payload", f"{name}: label {label['label_id']} lies outside its source offsets"))
    return out


def _lasting(stream: list[Announcement]) -> Found:
    """No revision has fewer labels than the one before."""
    out: Found = []
    before: dict[str, set[str]] = {}
    for announced in stream:
        episode_id = announced.datum["episode_id"]
        labels = {label["label_id"] for label in announced.datum["labels"]}
        if gone := before.get(episode_id, set()) - labels:
            out.append(("lost write", f"episode {episode_id} revision {announced.datum['revision']} lost {gone}"))
        before[episode_id] = labels
    return out


def _same(found: dict[str, Any], event: Event) -> bool:
    """Whether an applied label is the one that was sent; times come back as datetimes."""
    sent = event.datum["label"]
    at = found["labelled_at"]
    micros = (at - _EPOCH) // timedelta(microseconds=1) if isinstance(at, datetime) else at
    return bool({**found, "labelled_at": micros} == sent)
