"""How far the training of a line's first version has come: one object, which a restart goes on from.

`halfway/<policy>.safetensors` is a snapshot of the core, with what it has drawn, and the settings that it was
trained with; removed once the version is published. What is trained from it has the bits of a training that
nothing interrupted.
"""

from __future__ import annotations

import structlog

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from learner.core import TrainingCore
from learner.errors import BadPayload, InvalidArtifact
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.policies.artifact import pack_json, unpack_json

_DRAWS = "draws"

_log = structlog.get_logger(__name__)


class Halfway:
    """That object of one policy line.

    Raises (all methods):
        Stopped: a stop was asked for.
    """

    def __init__(self, store: ObjectStore, policy: str, patience: Patience) -> None:
        self._store = store
        self._key = f"halfway/{policy}.safetensors"
        self._patience = patience

    def save(self, core: TrainingCore) -> None:
        """Be able to go on from here."""
        document, tensors = core.snapshot()
        settings = core.settings.model_dump(mode="json")
        data = pack_json({"core": document, "settings": settings}, {**tensors, _DRAWS: core.draws.counts()})
        self._patience.call("object store", lambda: self._store.put(self._key, data))

    def resume(self, core: TrainingCore, payloads: PayloadFetcher) -> TrainingCore:
        """The core as it was saved, if `core` is its beginning (settings, spec, episodes); else `core`."""
        try:
            document, tensors = unpack_json(
                self._patience.call("object store", lambda: self._store.get(self._key))
            )
            theirs, settings = document["settings"], core.settings.model_dump(mode="json")
            if others := [name for name in settings if settings[name] != theirs.get(name)]:
                _log.warning("training_begins_anew", settings=others, reason="it had begun with other ones")
                return core
            ours = core.snapshot()[0]
            if (
                theirs.keys() != settings.keys()
                or _DRAWS not in tensors
                or any(document["core"][name] != ours[name] for name in ("spec", "index"))
            ):
                return core
            restored = TrainingCore.restore(
                core.settings, document["core"], tensors, room=core.room, team=core.team
            )
        except ObjectMissing:
            return core
        except (InvalidArtifact, KeyError, TypeError, ValueError) as error:
            _log.error("halfway_passed_over", key=self._key, error=str(error))
            return core
        for record, episode in payloads.take_all(restored.episodes.to_refill()):
            if isinstance(episode, BadPayload):
                _log.error("episode_lost", episode_id=record.episode_id, reason=str(episode))
                restored.close()
                return core
            restored.refill(episode)
        restored.draws.go_on(tensors[_DRAWS])
        core.close()
        _log.info("training_resumes", learner_step=restored.learner_step)
        return restored

    def remove(self) -> None:
        """It is published."""
        self._patience.call("object store", lambda: self._store.delete(self._key))
