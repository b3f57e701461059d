"""From announcements to episodes that can be admitted: newest revisions, fetched ahead, bad ones set aside.

What an announcement alone tells to be of no use (another robot kind, an unknown task) is set aside before its
payload is asked for. That follows from policy and announcement, so the journal need not say it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from infra.clock import Clock
from infra.telemetry import EPISODES_SET_ASIDE
from learner.episodes import Episode, EpisodeRecord
from learner.errors import BadPayload, LearnerError, UnfitEpisode
from learner.journal import Decision
from learner.payloads import PayloadFetcher
from learner.policies.base import ACTION, STATE, feature
from learner.revisions import RevisionTable
from learner.set_aside import LeftOut, SetAside
from learner.stream import Announcements
from schemas.events import EpisodeMaterialized, EpisodeSource, Position

_AHEAD = 64
"""Episodes that are asked for behind the one that is waited for."""

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
        self.set_aside = SetAside()
        self.excluded: dict[str, Seen] = {}
        """Newest revisions that a label leaves out of training, until they are set aside."""
        self.demonstrations_only = False
        """Until a line begins: other announcements are passed over, and read again by `take_up_rest`."""
        self._passed: dict[int, int] = {}
        self._require: Callable[[EpisodeMaterialized], None] | None = None
        self._stream = stream
        self._clock = clock
        self._revisions = RevisionTable()

    def start(
        self,
        positions: dict[int, int] | None = None,
        admitted: Iterable[EpisodeRecord] = (),
        set_aside: SetAside | None = None,
    ) -> None:
        """Read on from `positions`, knowing what was decided before."""
        self.set_aside = set_aside if set_aside is not None else SetAside()
        for record in admitted:
            self._know(record)
        for left in self.set_aside:
            self._know(left)
        self._stream.seek(positions)

    def require(self, admissible: Callable[[EpisodeMaterialized], None]) -> None:
        """From now on set aside whatever `admissible` refuses, by a LearnerError; of what waits, too."""
        self._require = admissible
        for seen in list(self.waiting.values()):
            if not self.wanted(seen):
                del self.waiting[seen.record.episode_id]
                self.payloads.drop(seen.record)

    def take_up_rest(self) -> None:
        """Read again what was passed over while there were to be demonstrations only."""
        self.demonstrations_only = False
        if self._passed:
            self._stream.seek({**self._stream.positions, **self._passed})
            self._passed = {}

    def poll(self, timeout: float) -> list[EpisodeMaterialized]:
        """Read announcements, waiting at most `timeout` seconds; all of them, also those of no use to training."""
        received = self._stream.poll(timeout)
        now = self._clock.now()
        for item in received:
            record = EpisodeRecord.of(item.event)
            if record.source is EpisodeSource.EVALUATION:
                continue
            if self.demonstrations_only and record.source is not EpisodeSource.DEMONSTRATION:
                self._passed.setdefault(item.partition, item.offset)
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
            elif self.wanted(seen):
                self.waiting[record.episode_id] = seen
                self.payloads.prefetch(record)
        return [item.event for item in received]

    def ready(self) -> list[Seen]:
        """Those whose payload is here, in the order of their announcement, up to the first that is not."""
        found: list[Seen] = []
        members = iter(self.waiting.values())
        for seen in members:
            if not self.payloads.ready(seen.record):
                break
            found.append(seen)
        for seen in itertools.islice(members, _AHEAD):
            if not self.payloads.ask_while_room(seen.record):
                break
        return found

    def take_each(self, waiting: Iterable[Seen]) -> Iterator[tuple[Seen, Episode | None]]:
        """Take these in their order, as `take` does, each fetched while those before are used."""
        members, asked = list(waiting), 0
        for place, seen in enumerate(members):
            asked = max(asked, place)
            while asked < min(len(members), place + 1 + _AHEAD):
                if not self.payloads.ask_while_room(members[asked].record):
                    break
                asked += 1
            yield seen, self.take(seen)

    def take(self, seen: Seen) -> Episode | None:
        """The episode, no longer waiting; None if it is not what was announced, and then it is set aside."""
        try:
            episode = self.payloads.take(seen.record)
            _require_declared(episode, seen.event)
        except LearnerError as error:
            self.reject(seen, error)
            return None
        self.waiting.pop(seen.record.episode_id, None)
        self.set_aside.discard(seen.record.episode_id)
        return episode

    def passes(self, seen: Seen, episode: Episode, require: Callable[[Episode], None]) -> bool:
        """Whether an episode that was taken is let in; what `require` refuses, by a LearnerError, is set aside."""
        try:
            require(episode)
        except LearnerError as error:
            self.reject(seen, error)
            return False
        return True

    def reject(self, seen: Seen, reason: LearnerError) -> None:
        """Set an episode aside: training goes on without it, and does not ask again."""
        self.waiting.pop(seen.record.episode_id, None)
        self.payloads.drop(seen.record)  # another rank may hold what was taken
        self._put_aside(seen, reason, "error")

    def leave_out(self) -> list[Seen]:
        """Set aside what labels exclude; those episodes, each once."""
        found, self.excluded = list(self.excluded.values()), {}
        for seen in found:
            self.set_aside.put(seen.record)
            _log.info("episode_excluded", episode_id=seen.record.episode_id, revision=seen.record.revision)
        return found

    def records(self) -> Iterator[EpisodeRecord | LeftOut]:
        """Of all episodes that were announced and not admitted: waiting, or set aside."""
        for seen in (*self.waiting.values(), *self.excluded.values()):
            yield seen.record
        yield from self.set_aside

    def positions(self) -> tuple[Position, ...]:
        """Where to read on after a restart: everything before was admitted or set aside."""
        offsets = self._stream.positions
        for seen in (*self.waiting.values(), *self.excluded.values()):
            offsets[seen.partition] = min(offsets.get(seen.partition, seen.offset), seen.offset)
        for partition, offset in self._passed.items():
            offsets[partition] = min(offsets.get(partition, offset), offset)
        return tuple(Position(partition=number, offset=offset) for number, offset in sorted(offsets.items()))

    def wanted(self, seen: Seen) -> bool:
        """Whether its announcement lets an episode be of use; else it is set aside."""
        try:
            if self._require is not None:
                self._require(seen.event)
        except LearnerError as reason:
            self._put_aside(seen, reason, "info")  # another kind's, on a shared topic: nothing is wrong with it
            return False
        return True

    def _put_aside(self, seen: Seen, reason: LearnerError, level: Literal["info", "error"]) -> None:
        self.set_aside.put(seen.record)
        EPISODES_SET_ASIDE.labels(type(reason).__name__).inc()
        getattr(_log, level)(
            "episode_set_aside",
            episode_id=seen.record.episode_id,
            revision=seen.record.revision,
            reason=str(reason),
            set_aside=len(self.set_aside),
        )

    def _know(self, record: EpisodeRecord | LeftOut) -> None:
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
