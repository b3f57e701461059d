"""Ranks that follow: they do to their core what the first rank does to its own, in the same order.

The first rank alone reads the stream, journals, checkpoints and publishes. What it does to its core it says first;
payloads are read by the rank with which an episode lies. All but the weights of a snapshot travel as JSON.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import structlog

from infra.object_store import ObjectStore
from infra.settings import LearnerSettings, Settings
from learner.cache import PayloadCache
from learner.core import TrainingCore
from learner.episodes import Episode, EpisodeRecord, Frames
from learner.errors import BadPayload, UnfitEpisode
from learner.frames import Room
from learner.patience import Patience, Stopped
from learner.payloads import Key, PayloadFetcher, key_of
from learner.policies.artifact import unpack_json
from learner.team import Team
from learner.tracks import Track

_ANSWER_SECONDS = 1.0
"""So soon a rank says that it waits itself: the first one looks for a stop, and asks again."""

_log = structlog.get_logger(__name__)


class SharedFetcher(PayloadFetcher):
    """The first rank's: payloads of episodes that lie elsewhere are read there.

    What `take` returns of such an episode has the widths of its vectors, and no frames.
    """

    team = Team()
    whole = False
    """Everything is read here: while a line begins, all demonstrations are looked at together."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._asked_elsewhere: set[Key] = set()

    def prefetch(self, record: EpisodeRecord) -> None:
        """Have it fetched soon, where it lies."""
        if self._here(record):
            super().prefetch(record)
        else:
            self.team.tell(_message("prefetch", record=record.model_dump(mode="json")))

    def ask_while_room(self, record: EpisodeRecord) -> bool:
        """The same; of what lies elsewhere its owner knows whether there is room, and is asked once."""
        if self._here(record):
            return super().ask_while_room(record)
        if key_of(record) not in self._asked_elsewhere:
            self._asked_elsewhere.add(key_of(record))
            self.team.tell(_message("prefetch", record=record.model_dump(mode="json")))
        return True

    def ready(self, record: EpisodeRecord) -> bool:
        """Whether `take` would return at once; of what lies elsewhere that is taken for granted."""
        return not self._here(record) or super().ready(record)

    def take(self, record: EpisodeRecord) -> Episode:
        """The episode; see `PayloadFetcher.take`."""
        if self._here(record):
            return super().take(record)
        super().drop(record)  # it may have been fetched while everything was read here
        self._asked_elsewhere.discard(key_of(record))
        reply = self._ask_for(record)
        if reply["error"] is not None and reply["stopped"]:
            raise Stopped
        if reply["error"] is not None:
            raise BadPayload(reply["error"])
        tracks = {name: Track.elsewhere(tuple(size) if size else None) for name, size in reply["sizes"].items()}
        return Episode(record, no_frames(*reply["widths"]), tracks)

    def _ask_for(self, record: EpisodeRecord) -> dict[str, Any]:
        """What the owner says of a payload, asked again until it has it; between two questions a stop is heard."""
        try:
            while True:
                self._patience.check()
                self.team.tell(_message("take", record=record.model_dump(mode="json")))
                reply: dict[str, Any] = json.loads(self.team.share(record.episode_id, lambda: b""))
                if "waits" not in reply:
                    return reply
                with self._changed:
                    self._note(key_of(record), reply["waits"] or None)
        finally:
            with self._changed:
                self._note(key_of(record), None)

    def drop(self, record: EpisodeRecord) -> None:
        """Forget a payload that nobody will take."""
        if self._here(record):
            super().drop(record)
        else:
            self._asked_elsewhere.discard(key_of(record))
            self.team.tell(_message("drop", record=record.model_dump(mode="json")))

    def _here(self, record: EpisodeRecord) -> bool:
        return self.whole or self.team.has(record.episode_id)


def no_frames(state: int, action: int) -> Frames:
    """Frames of an episode that lies elsewhere: none, of vectors of these widths."""
    return Frames(
        index=np.empty(0, np.int32),
        human=np.empty(0, np.bool_),
        states=np.empty((0, state), np.float32),
        actions=np.empty((0, action), np.float32),
        rewards=np.empty(0, np.float32),
    )


def make_fetcher(settings: Settings, store: ObjectStore, patience: Patience, team: Team) -> PayloadFetcher:
    """Payloads through this machine's cache; of a bound of 0 bytes there is none.

    It has the cameras of a line that begins now: whoever restores one says which are that one's.
    """
    bound = settings.cache.max_bytes
    cache = PayloadCache(settings.cache.directory, bound) if bound else None
    if team.alone or not team.leads:
        fetcher = PayloadFetcher(store, patience, cache=cache)
    else:
        fetcher = SharedFetcher(store, patience, cache=cache)
        fetcher.team = team
    fetcher.cameras = settings.learner.cameras
    return fetcher


def make_room(settings: Settings, patience: Patience) -> Room:
    """Where frames lie on this machine; who writes them waits while it is full."""
    cache = settings.cache
    return Room(cache.directory / "frames", patience.wait_for_room, cache.image_bytes)


def follow(settings: Settings, team: Team, stop: threading.Event) -> None:
    """Do what the first rank says until it says that it is done.

    Raises:
        Stopped: a stop was asked for while a payload was waited for.
        RankGone: the first rank is gone.
    """
    patience = Patience(stop)
    payloads = make_fetcher(settings, ObjectStore(settings.s3), patience, team)
    follower = _Follower(team, payloads, make_room(settings, patience))
    try:
        for message in _heard(team):
            follower.do(message)
    finally:
        payloads.close()


class _Follower:
    def __init__(self, team: Team, payloads: PayloadFetcher, room: Room) -> None:
        self._team, self._payloads, self._room = team, payloads, room
        self._core: TrainingCore | None = None
        self._taken: dict[str, Episode] = {}

    def do(self, message: dict[str, Any]) -> None:
        """One thing that the first rank does, too."""
        what = message["do"]
        if what == "be":
            self._be(LearnerSettings.model_validate(message["settings"]), self._team.hear())
        elif what == "prefetch":
            self._payloads.prefetch(EpisodeRecord.model_validate(message["record"]))
        elif what == "drop":
            self._drop(EpisodeRecord.model_validate(message["record"]))
        elif what == "take":
            self._take(EpisodeRecord.model_validate(message["record"]))
        elif self._core is None:
            raise RuntimeError(f"the first rank asked for {what} before there was a policy")
        elif what in {"admit", "refill"}:
            record = EpisodeRecord.model_validate(message["record"])
            getattr(self._core, what)(self._episode(record))
        elif what == "judge":
            self._judge(self._core, EpisodeRecord.model_validate(message["record"]))
        else:
            getattr(self._core, _CALLS[what])(**message["with"])

    def _be(self, settings: LearnerSettings, snapshot: bytes) -> None:
        if self._core is not None:
            self._core.close()
        document, tensors = unpack_json(snapshot)
        self._core = TrainingCore.restore(settings, document, tensors, room=self._room, team=self._team)
        self._payloads.cameras = self._core.spec.cameras
        self._taken.clear()

    def _take(self, record: EpisodeRecord) -> None:
        def look() -> bytes:
            try:
                if not self._payloads.wait_for(record, _ANSWER_SECONDS):
                    return json.dumps({"waits": self._payloads.refused(record)}).encode()
                episode = self._payloads.take(record)
            except BadPayload as error:
                return json.dumps({"error": str(error), "stopped": False}).encode()
            except Stopped:
                return json.dumps({"error": "", "stopped": True}).encode()
            self._taken[record.episode_id] = episode
            widths = episode.frames.states.shape[1], episode.frames.actions.shape[1]
            sizes = {name: track.size for name, track in episode.tracks.items()}
            return json.dumps({"error": None, "widths": widths, "sizes": sizes}).encode()

        self._team.share(record.episode_id, look)

    def _drop(self, record: EpisodeRecord) -> None:
        taken = self._taken.get(record.episode_id)
        if taken is not None and taken.record == record:
            del self._taken[record.episode_id]
        self._payloads.drop(record)

    def _judge(self, core: TrainingCore, record: EpisodeRecord) -> None:
        mine = self._team.has(record.episode_id)
        episode = self._taken[record.episode_id] if mine else Episode(record, no_frames(0, 0))
        with contextlib.suppress(UnfitEpisode):  # the first rank hears it, too, and has it dropped
            core.require_plausible(episode)

    def _episode(self, record: EpisodeRecord) -> Episode:
        if not self._team.has(record.episode_id):
            return Episode(record, no_frames(0, 0))
        taken = self._taken.pop(record.episode_id, None)
        if taken is not None and taken.record == record:
            return taken
        return self._payloads.take(record)  # a demonstration, which the first rank has looked at


_CALLS = {"update": "update", "forget": "forget", "phase": "begin_phase", "agree": "require_agreement"}


def _heard(team: Team) -> Iterator[dict[str, Any]]:
    while (message := json.loads(team.hear()))["do"] != "end":
        if message["do"] != "nothing":
            yield message


def _message(do: str, **facts: Any) -> bytes:
    return json.dumps({"do": do, **facts}).encode()
