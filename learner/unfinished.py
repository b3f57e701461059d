"""What an unfinished backfill was begun with: one object beside its snapshot, gone once its version is published.

`halfway/<policy>.json` holds the command's words, and the choice with its times as they were at the first call: so
`--from 24h` means the same day however often the command is given, until it is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from infra.settings import Settings
from learner.choice import Choice
from learner.errors import OtherChoice
from learner.journal import Journal
from learner.patience import Patience
from learner.stream import Received
from schemas.events import EpisodeMaterialized

_log = structlog.get_logger(__name__)

Announced = Received[EpisodeMaterialized]

_NOWHERE: Mapping[int, int] = {}


class Begun(BaseModel):
    """The first call of a backfill.

    words: the command's own, None if there was none. choice: what they meant then. sha256: of what was chosen,
    ids and revisions. ends: by partition of training-episodes, the offset behind all that was looked at; a learner
    that trains the line on begins there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: str | None
    choice: Choice
    sha256: str
    ends: dict[int, int] = {}

    @classmethod
    def of(
        cls, words: str | None, choice: Choice, chosen: Iterable[Announced], ends: Mapping[int, int] = _NOWHERE
    ) -> Begun:
        """A call that chose these; what arrives later is not chosen by it."""
        events = [item.event for item in chosen]
        past = max((event.appended_at for event in events), default=None)
        if past is not None:
            until = past + timedelta(microseconds=1)
            choice = replace(choice, until=until if choice.until is None else min(choice.until, until))
        digest = _digest((event.episode_id, event.revision) for event in events)
        return cls(words=words, choice=choice, sha256=digest, ends=dict(ends))


class Unfinished:
    """That object of one policy line.

    Raises (all methods):
        Stopped: a stop was asked for.
    """

    def __init__(self, settings: Settings, patience: Patience) -> None:
        """Of the line that `settings.learner` names."""
        self._store, self._patience = ObjectStore(settings.s3), patience
        self._policy = settings.learner.policy
        self._key = f"halfway/{self._policy}.json"

    def read(self) -> Begun | None:
        """What it was begun with; None if it was not, or nobody wrote it down."""
        try:
            return Begun.model_validate_json(
                self._patience.call("object store", lambda: self._store.get(self._key))
            )
        except ObjectMissing:
            return None
        except ValidationError as error:
            _log.error("choice_passed_over", key=self._key, reason=str(error.errors()[0]["msg"]))
            return None

    def begin(self, call: Begun) -> Begun:
        """Write down what is begun with, unless training has begun with it before; the call that began it.

        Raises:
            OtherChoice: training has begun with other episodes.
        """
        before, trained = self.read(), self._trained_on()
        if trained is None:
            data = call.model_dump_json().encode()
            self._patience.call("object store", lambda: self._store.put(self._key, data))
            return call
        if before is None:  # the journal alone knows, which leaves out what could not be read
            same = trained == call.sha256
        else:
            same = call.sha256 == before.sha256 or (call.words is not None and call.words == before.words)
        if not same:
            began = f" ({before.words})" if before is not None and before.words else ""
            raise OtherChoice(
                f"policy {self._policy} is being trained on another choice{began}: give the command that began it "
                "to go on with that one, or another name (--policy) to begin with this one"
            )
        return before or call

    def remove(self) -> None:
        """It is published."""
        self._patience.call("object store", lambda: self._store.delete(self._key))

    def _trained_on(self) -> str | None:
        """Digest of what the journal begins with; None if it does not."""
        entries = Journal(self._store, self._policy, self._patience).readable_tail(0)
        if not entries or entries[0].beginning is None:
            return None
        decisions = (*entries[0].admitted, *entries[0].set_aside)
        return _digest((decision.record.episode_id, decision.record.revision) for decision in decisions)


def _digest(episodes: Iterable[tuple[str, int]]) -> str:
    text = "".join(f"{episode_id} {revision}\n" for episode_id, revision in sorted(episodes))
    return hashlib.sha256(text.encode()).hexdigest()
