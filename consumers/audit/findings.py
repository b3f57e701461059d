"""What an audit found, by name, so that an operator can look at each thing and act."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

LISTED = 10_000
"""Findings of one kind that are kept by name; more are counted. About 0.5 KB each."""


class Kind(StrEnum):
    """What is the matter with it."""

    MISSING = "missing"
    DOUBLED = "doubled"
    ORPHANED = "orphaned"
    WRONG = "wrong"


class Where(StrEnum):
    """In which of the things that are compared."""

    ROBOT_TOPICS = "robot topics"
    LABELS = "labels"
    TRAINING_STREAM = "training stream"
    DEAD_LETTERS = "dead letters"
    OBJECTS = "objects"
    FRAMES = "frames"
    ROWS = "rows"
    INTERVENTION_ROWS = "intervention rows"
    DEAD_LETTER_ROWS = "dead-letter rows"


@dataclass(slots=True)
class Finding:
    """One thing that is not as it should be.

    `name` says which, `text` says what about it and what to do. The other fields are the name's parts, where they
    apply: `topic`, `partition`, `offset` are a place in Kafka, `key` is an object's. `mended` says how it was.
    """

    kind: Kind
    where: Where
    name: str
    text: str
    episode_id: str | None = None
    revision: int | None = None
    key: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    detail: tuple[object, ...] = ()
    mended: str | None = None

    def as_json(self) -> dict[str, object]:
        """The finding for a machine; what does not apply is left out."""
        names = ("episode_id", "revision", "key", "topic", "partition", "offset", "mended")
        parts = {name: getattr(self, name) for name in names}
        shown = {"kind": self.kind.value, "where": self.where.value, "name": self.name, "text": self.text}
        return shown | {name: value for name, value in parts.items() if value is not None}


@dataclass
class Report:
    """Everything that an audit has to say.

    checked: how many things were compared, by what they are. open: events of episodes that are still open, by
    episode. notes: what could not be judged, and from where on the audit could look.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Kind, Where]] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    open: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Take a finding in; beyond `LISTED` of its kind it is only counted."""
        group = (finding.kind, finding.where)
        self.counts[group] += 1
        if self.counts[group] <= LISTED:
            self.findings.append(finding)

    def of(self, where: Where, *kinds: Kind) -> list[Finding]:
        """Named findings of these kinds that are not mended yet."""
        return [f for f in self.findings if f.where is where and f.kind in kinds and f.mended is None]

    @property
    def left(self) -> int:
        """Findings that were not mended."""
        return sum(self.counts.values()) - sum(f.mended is not None for f in self.findings)

    @property
    def clean(self) -> bool:
        """Whether nothing is left to do."""
        return self.left == 0

    def as_json(self) -> dict[str, object]:
        """The report for a machine."""
        return {
            "clean": self.clean,
            "counts": {f"{where.value}: {kind.value}": n for (kind, where), n in sorted(self.counts.items())},
            "checked": dict(self.checked),
            "findings": [finding.as_json() for finding in self.findings],
            "open": self.open,
            "notes": self.notes,
        }
