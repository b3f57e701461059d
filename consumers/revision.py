"""Late events: the next revision of an episode is the union of what is stored and what came after."""

from __future__ import annotations

import numpy as np

from consumers import step_checks
from consumers.dead_letters import DeadLetter, Reason
from consumers.episode import OpenEpisode
from consumers.labelled import united
from consumers.payload import StoredPayload
from consumers.ranges import RangeSet
from consumers.step_buffer import StepBuffer
from schemas.events import Label


def reopened(stored: StoredPayload) -> OpenEpisode:
    """A stored episode as it was when it was sealed."""
    facts = stored.facts
    episode = OpenEpisode(facts.episode_id, facts.robot_id, facts.boot_epoch)
    for event in facts.events:
        episode.take(event)
    episode.labels = facts.labels
    episode.seen = RangeSet.of(facts.sequences)
    episode.rejected = RangeSet.of(facts.rejected)
    if len(stored.steps):
        episode.steps.append(stored.steps)
    episode.offsets = {part.topic: (part.first, part.last) for part in facts.source_offsets}
    episode.partition = facts.source_offsets[0].partition
    episode.appended_ms = round(facts.appended_at.timestamp() * 1000)
    return episode


def merged(stored: StoredPayload, late: OpenEpisode) -> tuple[OpenEpisode | None, list[DeadLetter]]:
    """The union of a stored episode and events that came after it was sealed.

    Sequences and labels that are stored already are duplicates. Steps that came without their start are measured
    now; what does not fit is moved from what `late` has seen to what it rejected, so give it away.

    Returns:
        The episode, or None when the events add nothing; and records that do not fit it.
    """
    episode = reopened(stored)
    known = episode.accounted()
    fresh = late.accounted().without(known)
    labels, dead = _new_labels(episode, late)
    if not fresh and not labels:
        return None, dead
    episode.labels = united(episode.labels, labels)
    for event in (late.started, late.ended, *late.interventions, *late.footage):
        if event is None or event.sequence not in fresh:
            continue
        if (problem := episode.unfit(event)) is not None:
            # `late` did not know better: of two starts or ends the first counts, and no more fits than fits.
            late.seen.discard(event.sequence)
            late.rejected.add(event.sequence)
            dead.append(DeadLetter(late.others[event.sequence], *problem))
        else:
            episode.take(event)
    dead += _add_steps(episode, late, known)
    for low, high in fresh:
        for sequence in range(low, high + 1):
            (episode.rejected if sequence in late.rejected else episode.seen).add(sequence)
    for topic, (low, high) in late.offsets.items():
        first, last = episode.offsets.get(topic, (low, high))
        episode.offsets[topic] = (min(first, low), max(last, high))
    episode.appended_ms = max(episode.appended_ms, late.appended_ms)
    return episode, dead


def without_buried(episode: OpenEpisode, buried: RangeSet) -> None:
    """Take out of a sealed episode what was buried before: it counts as rejected, in whichever copy it came again.

    Calling it again changes nothing.
    """
    if episode.started is not None:  # a start is no event that waits for its start: it said something else before
        buried = RangeSet(buried)
        buried.discard(episode.started.sequence)
    again = episode.seen.common(buried)
    episode.rejected.update(buried)
    if not again:
        return
    episode.seen = episode.seen.without(again)
    episode.others = {sequence: place for sequence, place in episode.others.items() if sequence not in again}
    episode.interventions = [event for event in episode.interventions if event.sequence not in again]
    episode.footage = [event for event in episode.footage if event.sequence not in again]
    if episode.ended is not None and episode.ended.sequence in again:
        episode.ended = None
    episode.steps, episode.early = _filtered(episode.steps, again), _filtered(episode.early, again)


def _filtered(buffer: StepBuffer, sequences: RangeSet) -> StepBuffer:
    kept = StepBuffer()
    for steps, records in buffer.parts():
        rest = step_checks.without_announced(steps, sequences)
        if len(rest):
            kept.append(rest, records)
    return kept


def _new_labels(episode: OpenEpisode, late: OpenEpisode) -> tuple[list[Label], list[DeadLetter]]:
    """Labels that the episode does not have yet, and dead letters for those that contradict one that it has."""
    known = {label.label_id: label for label in episode.labels}
    fresh, dead = [], []
    for label, place in late.late_labels:
        if label.label_id not in known:
            known[label.label_id] = label
            fresh.append(label)
        elif label != known[label.label_id]:
            text = f"label {label.label_id} was there before, with other content"
            dead.append(DeadLetter(place, Reason.CONFLICT, text))
    return fresh, dead


def _add_steps(episode: OpenEpisode, late: OpenEpisode, known: RangeSet) -> list[DeadLetter]:
    """Late steps that are new and fit the episode's features; dead letters for those that do not fit."""
    dead = []
    for steps, records in late.early.parts():
        new = step_checks.without_announced(steps, known)
        keep = np.ones(len(new), np.bool_)
        for at, text in step_checks.misfits(new, episode):
            keep[at] = False
            sequence = int(new.sequence[at])
            late.seen.discard(sequence)
            late.rejected.add(sequence)
            if records is not None:
                dead.append(DeadLetter(records.origin(int(new.row[at])), Reason.WRONG_LENGTH, text))
        episode.steps.append(new.where(keep))
    for steps in late.steps.steps():
        episode.steps.append(step_checks.without_announced(steps, known))
    return dead
