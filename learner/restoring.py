"""After a rollback: from which version a line goes on, and which versions are its past.

A rollback is a mark in the line's rollout (`PolicyRollout.restored`), which a learner obeys once. That it did is
written to `restored/<policy>.json` once a core stands at that version, before anything is decided or announced:
the mark's generation, the version, and the newest version of that moment. So whoever starts later knows whether
the newest version comes after the rollback, or is what was given up. An order that cannot be obeyed, or was
withdrawn before it was, leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from infra.policies.log import RolloutLog
from infra.policies.rollout import versions_in
from infra.settings import Settings
from learner.errors import CheckpointMissing, RolledBack
from learner.patience import Patience
from schemas.events import PolicyRollout, PolicyVersion, Restored

_log = structlog.get_logger(__name__)


class Obeyed(BaseModel):
    """The rollback that was obeyed last: versions above `version` up to `newest` were given up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: int = 0
    version: int = 0
    newest: int = 0


def tip_of(published: Mapping[int, PolicyVersion], obeyed: Obeyed) -> int:
    """The version to go on from; 0 where there is none."""
    newest = max(published, default=0)
    return obeyed.version if obeyed.generation and newest <= obeyed.newest else newest


def past_of(published: Mapping[int, PolicyVersion], version: int) -> dict[int, PolicyVersion]:
    """A version and its ancestors, by number."""
    past: dict[int, PolicyVersion] = {}
    at: int | None = version
    while at is not None and at in published and at not in past:
        past[at] = published[at]
        at = published[at].parent_version
    return past


class Rollbacks:
    """The rollbacks of one line, to its learner.

    Raises (all methods):
        Stopped: a stop was asked for.
    """

    def __init__(self, settings: Settings, store: ObjectStore, policy: str, patience: Patience) -> None:
        """Raises KeyUnusable: a public key of the settings is none."""
        self._log = RolloutLog(settings, f"learner-{policy}")
        self._store = store
        self._policy = policy
        self._key = f"restored/{policy}.json"
        self._patience = patience
        self._obeyed = Obeyed()
        self._ordered: Obeyed | None = None

    @property
    def ordered(self) -> bool:
        """Whether `past` found a rollback that is yet to be obeyed."""
        return self._ordered is not None

    def past(self, published: Mapping[int, PolicyVersion]) -> dict[int, PolicyVersion]:
        """The version to go on from and its ancestors, once any older learner is fenced.

        If a new rollback says which, `obey` must follow as soon as a core stands there.

        Raises:
            CheckpointMissing: the version to go back to was never published.
        """
        self._obeyed, self._ordered = self._read(), None
        mark = _mark(self._state())
        if mark is not None and mark.generation > self._obeyed.generation:
            if mark.version not in published:
                raise CheckpointMissing(
                    f"the rollback of {self._policy} names version {mark.version}, which was never published; say "
                    "another one (`sop policies rollback --to`)"
                )
            self._ordered = Obeyed(generation=mark.generation, version=mark.version, newest=max(published))
        return past_of(published, tip_of(published, self._ordered or self._obeyed))

    def obey(self, version: int, give_up: Callable[[int, int], None]) -> None:
        """A core stands at `version`, where the new rollback says, if there is one: say so, once.

        `give_up` is called before, with the version that is gone back to and the newest one: what was decided
        after the former, or sealed after the latter, never was. Whoever is killed in between does it again.

        Raises:
            CheckpointMissing: the core stands elsewhere: the way to that version could not be gone.
        """
        if self._ordered is None:
            return
        if version != self._ordered.version:
            raise CheckpointMissing(
                f"{self._policy} cannot be rolled back to version {self._ordered.version}: there is a checkpoint "
                f"of version {version}, and nothing leads on from there any more (the log says why); roll back to "
                "another one, or promote, which withdraws the order"
            )
        give_up(self._ordered.version, self._ordered.newest)
        data = self._ordered.model_dump_json().encode()
        self._patience.call("object store", partial(self._store.put, self._key, data))
        self._obeyed, self._ordered = self._ordered, None
        version, newest = self._obeyed.version, self._obeyed.newest
        _log.warning("learner_rolls_back", policy=self._policy, version=version, given_up_to=newest)

    def check(self) -> set[int]:
        """Versions that the rollout names now, whose checkpoints may be needed.

        Raises:
            RolledBack: there is a rollback that was not obeyed yet.
        """
        state = self._state()
        mark = _mark(state)
        if mark is not None and mark.generation > self._obeyed.generation:
            raise RolledBack(
                f"{self._policy} is rolled back to version {mark.version}: {state.reason if state else ''}"
            )
        return versions_in(state) if state is not None else set()

    def _state(self) -> PolicyRollout | None:
        return self._patience.call("Kafka", lambda: self._log.newest(self._policy))

    def _read(self) -> Obeyed:
        try:
            data = self._patience.call("object store", lambda: self._store.get(self._key))
            return Obeyed.model_validate_json(data)
        except ObjectMissing:
            return Obeyed()
        except ValidationError as error:
            raise CheckpointMissing(
                f"{self._key} cannot be read ({error.errors()[0]['msg']}); restore it"
            ) from error


def _mark(state: PolicyRollout | None) -> Restored | None:
    return state.restored if state is not None else None
