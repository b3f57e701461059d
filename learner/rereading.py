"""Episodes that were decided about before, read again; what is gone by now is said and left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import structlog

from learner.core import TrainingCore
from learner.episodes import Episode, EpisodeRecord
from learner.errors import BadPayload
from learner.journal import Decision, Entry
from learner.payloads import PayloadFetcher

_log = structlog.get_logger(__name__)


def readable(payloads: PayloadFetcher, records: Iterable[EpisodeRecord]) -> Iterator[Episode]:
    """Those of the episodes that can be read, in their order."""
    for _, episode in _read(payloads, records):
        if episode is not None:
            yield episode


def reread(payloads: PayloadFetcher, entry: Entry) -> tuple[Entry, list[Episode], list[EpisodeRecord]]:
    """Decisions as they can still be carried out, the episodes to admit, and those that are lost: set aside."""
    good: list[tuple[Decision, Episode]] = []
    bad: list[Decision] = []
    episodes = _read(payloads, [decision.record for decision in entry.admitted])
    for decision, (_, episode) in zip(entry.admitted, episodes, strict=True):
        if episode is None:
            bad.append(decision)
        else:
            good.append((decision, episode))
    done = entry.model_copy(update={"admitted": tuple(d for d, _ in good), "set_aside": (*entry.set_aside, *bad)})
    return done, [episode for _, episode in good], [decision.record for decision in bad]


def about(core: TrainingCore, entries: Sequence[Entry]) -> bool:
    """Whether these decisions can have been made about this core, and not about one further on or further back."""
    step, admitted = core.learner_step, dict[str, int]()
    for entry in entries:
        if entry.learner_step < step or entry.beginning is not None:
            return False
        step = entry.learner_step
        for record in (decision.record for decision in entry.admitted):
            known = core.episodes.get(record.episode_id)
            before = max(known.revision if known is not None else 0, admitted.get(record.episode_id, 0))
            if record.revision <= before:
                return False
            admitted[record.episode_id] = record.revision
    return True


def _read(
    payloads: PayloadFetcher, records: Iterable[EpisodeRecord]
) -> Iterator[tuple[EpisodeRecord, Episode | None]]:
    for record, episode in payloads.take_all(records):
        if isinstance(episode, BadPayload):
            _log.error("episode_lost", episode_id=record.episode_id, reason=str(episode))
            yield record, None
        else:
            yield record, episode
