"""Whose a policy line is: the learner's that claimed it last. Each start leaves one small object in the bucket.

Kafka fences whoever connected first. That may be the younger of two: an older learner that was held up connects
again when it comes round. So who is younger is written down, `learners/<policy>/<number>-<random>`; the highest
name is the youngest, and an older one that finds it gives up.
"""

from __future__ import annotations

import uuid

from infra.errors import ProducerFenced
from infra.object_store import ObjectStore


class Claim:
    """One learner's claim to a policy line.

    Raises (all methods):
        ObjectStoreUnavailable: nothing is known; the same call may be made again.
    """

    def __init__(self, store: ObjectStore, policy: str) -> None:
        self._store = store
        self._prefix = f"learners/{policy}/"
        self._key = ""

    @property
    def name(self) -> str:
        """Sorts behind those of all older learners; empty before `lay`."""
        return self._key.removeprefix(self._prefix)

    def lay(self) -> None:
        """Be the youngest from now on, unless another starts at the same moment; older claims are removed."""
        older = self._store.list(self._prefix)
        last = int(older[-1].removeprefix(self._prefix).split("-")[0]) if older else 0
        key = f"{self._prefix}{last + 1:08d}-{uuid.uuid4().hex}"
        self._store.put(key, b"")
        self._key = key
        for claim in older:
            self._store.delete(claim)

    def require_youngest(self) -> None:
        """Go on only while nobody claimed the line later.

        Raises:
            ProducerFenced: somebody did.
        """
        if any(key > self._key for key in self._store.list(self._prefix)):
            raise ProducerFenced(f"a younger learner has taken over ({self._prefix}); this one is finished")
