"""Checks on the steps of one episode: whether they came before, and whether they fit.

Each takes a group in Kafka's order and returns what may stay, and what may not; the usual case costs a glance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from consumers.decode import StepGroup
from consumers.episode import OpenEpisode
from consumers.ranges import RangeSet
from consumers.steps import Steps, same_step
from consumers.vectors import Ints

_VECTORS = {"state": "state", "action": "action", "proposed_action": "action"}
"""Column to the feature that gives its layout."""


@dataclass
class Repeats:
    """Steps whose sequence was there before: the same again, or (as places in the group) something else."""

    duplicates: int = 0
    conflicts: list[int] = field(default_factory=list)


def without_announced(steps: Steps, sequences: RangeSet) -> Steps:
    """Steps that are not yet in an announced revision, whose sequences these are."""
    if not sequences or not len(steps) or not sequences.overlaps(*_extent(steps.sequence, ordered=False)):
        return steps
    return steps.where(np.fromiter((s not in sequences for s in steps.sequence.tolist()), np.bool_, len(steps)))


def without_repeats(group: StepGroup, episode: OpenEpisode) -> tuple[StepGroup, Repeats]:
    """Steps with new sequences; and what became of the others."""
    found, steps = Repeats(), group.steps
    first, last = _extent(steps.sequence, ordered=group.ordered)
    if group.ordered and not episode.seen.overlaps(first, last) and not episode.rejected.overlaps(first, last):
        return group, found
    stored = episode.stored_steps(steps.sequence)
    first_at: dict[int, int] = {}
    keep = np.ones(len(steps), np.bool_)
    for at, sequence in enumerate(steps.sequence.tolist()):
        if sequence in episode.rejected:
            same = episode.rejected_as(sequence, group.origin(at).value)
        elif sequence in first_at:
            same = same_step(steps.values(first_at[sequence]), steps.values(at))
        elif sequence in episode.seen:
            same = sequence in stored and same_step(stored[sequence], steps.values(at))
        else:
            first_at[sequence] = at
            continue
        keep[at] = False
        if same:
            found.duplicates += 1
        else:
            found.conflicts.append(at)
    return (group if keep.all() else group.narrowed(steps.where(keep))), found


def _extent(sequences: Ints, *, ordered: bool) -> tuple[int, int]:
    """Lowest and highest of them; `ordered` says that they grow."""
    if ordered:
        return int(sequences[0]), int(sequences[-1])
    return int(sequences.min()), int(sequences.max())


def all_fit(steps: Steps, episode: OpenEpisode) -> bool:
    """Whether it is seen at a glance that all vectors are as long as the episode's features say."""
    action = episode.vector_bytes("action")
    return (
        steps.state.all_fit(episode.vector_bytes("state"))
        and steps.action.all_fit(action)
        and steps.proposed_action.all_fit(action)
    )


def misfits(steps: Steps, episode: OpenEpisode) -> Iterator[tuple[int, str]]:
    """Places of steps whose vectors are not as long as the episode's features say, with what is wrong."""
    sizes = {column: episode.vector_bytes(feature) for column, feature in _VECTORS.items()}
    wrong: dict[int, list[str]] = {}
    for column, size in sizes.items():
        vectors = getattr(steps, column)
        for at in np.flatnonzero(~vectors.fits(size)).tolist():
            wrong.setdefault(at, []).append(f"{column} has {len(vectors.value(at))} bytes, its feature {size}")
    for at, texts in sorted(wrong.items()):
        yield at, ", ".join(texts)


def runs(sequences: Ints, *, ordered: bool) -> Iterator[tuple[int, int]]:
    """Distinct sequences as closed ranges; `ordered` says that they grow."""
    first, last = int(sequences[0]), int(sequences[-1])
    if ordered and last - first + 1 == len(sequences):
        yield first, last
        return
    ordered_ones = np.sort(sequences)
    breaks = np.flatnonzero(np.diff(ordered_ones) > 1)
    for low, high in zip([0, *(breaks + 1)], [*breaks, len(ordered_ones) - 1], strict=True):
        yield int(ordered_ones[low]), int(ordered_ones[high])
