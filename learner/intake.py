"""From announcements to episodes that can be admitted: newest revisions, fetched ahead, bad ones set aside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import structlog

from infra.clock import Clock
from infra.telemetry import EPISODES_SET_ASIDE
from learner.episodes import Episode, EpisodeRecord
from learner.errors import BadPayload, LearnerError, UnfitEpisode
from learner.journal import Decision
from learner.payloads import PayloadFetcher
from learner.policies.base import ACTION, STATE, feature
from learner.revisions import RevisionTable
from learner.stream import Announcements
from schemas.events import EpisodeMaterialized, EpisodeSource, Position

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """An announcement that was read at `seen_at`, and where it lies in training-episodes."""

    event: EpisodeMaterialized
    record: EpisodeRecord
    partition: int
    offset: int
    seen_at: datetime

    def decision(self) -> Decision:
        """For the journal."""
        return Decision(record=self.record, partition=self.partition, offset=self.offset, seen_at=self.seen_at)


class Intake:
    """Announced episodes that wait to be admitted. Evaluation and excluded episodes never get in here."""

    def __init__(self, stream: Announcements, payloads: PayloadFetcher, clock: Clock) -> None:
        self.payloads = payloads
        self.waiting: dict[str, Seen] = {}
        self.set_aside: dict[str, EpisodeRecord] = {}
        self.excluded: dict[str, Seen] = {}
        """Newest revisions that a label leaves out of training, until they are set aside."""
        self._stream = stream
        self._clock = clock
        self._revisions = RevisionTable()

    def start(
        self,
        positions: dict[int, int] | None = None,
        admitted: Iterable[EpisodeRecord] = (),
        set_aside: Iterable[EpisodeRecord] = (),
    ) -> None:
        """Read on from `positions`, knowing what was decided before."""
        self.set_aside = {record.episode_id: record for record in set_aside}
        for record in itertools.chain(admitted, self.set_aside.values()):
            self._know(record)
        self._stream.seek(positions)

    def poll(self, timeout: float) -> list[EpisodeMaterialized]:
        """Read announcements, waiting at most `timeout` seconds; all of them, also those of no use to training."""
        received = self._stream.poll(timeout)
        now = self._clock.now()
        for item in received:
            record = EpisodeRecord.of(item.event)
            if record.source is EpisodeSource.EVALUATION:
                continue
            if self._revisions.get(record.episode_id) >= record.revision:
                continue  # read before (after a restart), or overtaken by a newer revision
            superseded = self.waiting.pop(record.episode_id, None)
            if superseded is not None:
                self.payloads.drop(superseded.record)
            self._know(record)
            self.excluded.pop(record.episode_id, None)
            seen = Seen(item.event, record, item.partition, item.offset, now)
            if item.event.excluded:
                self.excluded[record.episode_id] = seen
            else:
                self.waiting[record.episode_id] = seen
                self.payloads.prefetch(record)
        return [item.event for item in received]

    def ready(self) -> list[Seen]:
        """Those whose payload is here, in the order of their announcement, up to the first that is not."""
        found = []
        for seen in self.waiting.values():
            if not self.payloads.ready(seen.record):
                break
            found.append(seen)
        return found

    def take(self, seen: Seen) -> Episode | None:
        """The episode, no longer waiting; None if it is not what was announced, and then it is set aside."""
        try:
            episode = self.payloads.take(seen.record)
            _require_declared(episode, seen.event)
        except LearnerError as error:
            self.reject(seen, error)
            return None
        self.waiting.pop(seen.record.episode_id, None)
        self.set_aside.pop(seen.record.episode_id, None)
        return episode

    def reject(self, seen: Seen, reason: LearnerError) -> None:
        """Set an episode aside: training goes on without it, and does not ask again."""
        self.waiting.pop(seen.record.episode_id, None)
        self.set_aside[seen.record.episode_id] = seen.record
        EPISODES_SET_ASIDE.labels(type(reason).__name__).inc()
        _log.error(
            "episode_set_aside",
            episode_id=seen.record.episode_id,
            revision=seen.record.revision,
            reason=str(reason),
            set_aside=len(self.set_aside),
        )

    def leave_out(self) -> list[Seen]:
        """Set aside what labels exclude; those episodes, each once."""
        found, self.excluded = list(self.excluded.values()), {}
        for seen in found:
            self.set_aside[seen.record.episode_id] = seen.record
            _log.info("episode_excluded", episode_id=seen.record.episode_id, revision=seen.record.revision)
        return found

    def records(self) -> list[EpisodeRecord]:
        """Of all episodes that were announced and not admitted: waiting, or set aside."""
        waiting = (*self.waiting.values(), *self.excluded.values())
        return [*(seen.record for seen in waiting), *self.set_aside.values()]

    def positions(self) -> tuple[Position, ...]:
        """Where to read on after a restart: everything before was admitted or set aside."""
        offsets = self._stream.positions
        for seen in (*self.waiting.values(), *self.excluded.values()):
            offsets[seen.partition] = min(offsets.get(seen.partition, seen.offset), seen.offset)
        return tuple(Position(partition=number, offset=offset) for number, offset in sorted(offsets.items()))

    def _know(self, record: EpisodeRecord) -> None:
        if record.revision > self._revisions.get(record.episode_id):
            self._revisions.put(record.episode_id, record.revision)


def _require_declared(episode: Episode, event: EpisodeMaterialized) -> None:
    if not math.isfinite(event.fps):
        raise UnfitEpisode(f"control rate is {event.fps} Hz")
    for name, rows in ((STATE, episode.frames.states), (ACTION, episode.frames.actions)):
        declared, found = feature(event.features, name).size, rows.shape[1]
        if declared != found:
            raise BadPayload(f"{event.payload_uri}: {name!r} has {found} elements, announced were {declared}")
    for name, track in episode.tracks.items():
        shape = feature(event.features, name).shape
        if track.size is not None and track.size != tuple(shape[:2]):
            raise BadPayload(f"{event.payload_uri}: {name!r} shows images of {track.size}, announced were {shape}")
