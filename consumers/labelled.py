"""What labels say, all together. Pure; `consumers.labels` says how they come to their episode."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.events import Label, Verdict

_SUCCESS = {Verdict.SUCCEEDED: True, Verdict.FAILED: False, Verdict.UNKNOWN: None}


def united(known: Iterable[Label], more: Iterable[Label]) -> tuple[Label, ...]:
    """Each label once, in order of time; of two with one id the known one."""
    by_id = {label.label_id: label for label in (*more, *known)}
    return tuple(sorted(by_id.values(), key=lambda label: (label.labelled_at, label.label_id)))


def success_of(labels: Iterable[Label], recorded: bool | None) -> bool | None:
    """Success by the newest label with a verdict, else as it was recorded; `labels` in order of time."""
    verdicts = [label.verdict for label in labels if label.verdict is not None]
    return _SUCCESS[verdicts[-1]] if verdicts else recorded


def is_excluded(labels: Iterable[Label]) -> bool:
    """Whether the newest label that speaks of it leaves the episode out; `labels` in order of time."""
    said = [label.excluded for label in labels if label.excluded is not None]
    return said[-1] if said else False
