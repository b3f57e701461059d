"""Ways to break the materializer, each of which the checker must notice; in a member's own process only.

They replace parts by name. Where a part was renamed, its mutation has to follow: it fails loudly, not silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from obstore.store import S3Store

from consumers import revision, step_checks, storing, takeover
from consumers.assembly import Assembly
from consumers.emitted import EmittedLog
from consumers.episode import OpenEpisode
from consumers.payload import StoredPayload
from infra import object_store
from infra.errors import TransactionAborted
from infra.kafka import LogReader, OutRecord, Partition, TransactionalProducer
from infra.registry import Registry
from schemas.events import ClosedBy


def commit_too_early() -> None:
    """Offsets are committed in a transaction of their own, before the one with the announcements."""
    commit = TransactionalProducer.commit

    def early(self: TransactionalProducer, records: Any, offsets: Any = None, group: Any = None) -> list[int]:
        commit(self, [], offsets, group)
        return commit(self, records, None, None)

    _replace(TransactionalProducer, "commit", early)


def forget_open_episodes() -> None:
    """The read position is committed, and not the first offset of the oldest open episode."""
    _replace(Assembly, "first_offset", lambda _self, _topic, position: position)


def no_forward_read() -> None:
    """A successor does not read what was announced."""

    def nothing(
        _reader: LogReader, _registry: Registry, starts: Mapping[Partition, int], *_: object
    ) -> EmittedLog:
        emitted = EmittedLog()
        ends = {topic: offset for (topic, _), offset in starts.items()}
        emitted.end_of_training = ends["training-episodes"]
        emitted.end_of_dead_letters = ends["dead-letters"]
        return emitted

    _replace(takeover, "read_emitted", nothing)


def no_union() -> None:
    """A new revision holds what came late, and not what was stored before."""

    def late_only(stored: StoredPayload, late: OpenEpisode) -> Any:
        facts = stored.facts.model_copy(update={"sequences": (), "rejected": ()})
        nothing = stored.steps.where(np.zeros(len(stored.steps), np.bool_))
        return revision.merged(StoredPayload(facts, nothing), late)

    _replace(storing, "merged", late_only)


def skip_on_dead_letter_failure() -> None:
    """When dead letters cannot be written, the others are committed without them."""
    commit = TransactionalProducer.commit

    def skipping(
        self: TransactionalProducer, records: Sequence[OutRecord], offsets: Any = None, group: Any = None
    ) -> list[int]:
        try:
            return commit(self, records, offsets, group)
        except TransactionAborted:
            kept = [record for record in records if record.topic != "dead-letters"]
            return commit(self, kept, offsets, group) + [0] * (len(records) - len(kept))

    _replace(TransactionalProducer, "commit", skipping)


def no_dedupe() -> None:
    """Steps that come again are taken again."""

    _replace(step_checks, "without_repeats", lambda group, _episode: (group, step_checks.Repeats()))
    _replace(step_checks, "without_announced", lambda steps, _sequences: steps)


def truncate_on_a_later_start() -> None:
    """A later start closes its predecessor at once, although events of it are still under way."""
    closed_by = OpenEpisode.closed_by

    def hasty(self: OpenEpisode) -> ClosedBy | None:
        if self.started is not None and self.successor_first is not None:
            return ClosedBy.SUCCESSOR
        return closed_by(self)

    _replace(OpenEpisode, "closed_by", hasty)


def no_bound_on_requests() -> None:
    """A request to the object store waits for its answer for ever."""

    def patient(bucket: str, *, config: Any, client_options: Any, retry_config: Any) -> Any:
        options: Any = {**client_options, "connect_timeout": "1day", "timeout": "1day"}
        return S3Store(bucket, config=config, client_options=options, retry_config=retry_config)

    _replace(object_store, "S3Store", patient)


def _replace(owner: object, name: str, by: object) -> None:
    getattr(owner, name)
    setattr(owner, name, by)


MUTATIONS: dict[str, Callable[[], None]] = {
    "commit-too-early": commit_too_early,
    "forget-open-episodes": forget_open_episodes,
    "no-forward-read": no_forward_read,
    "no-union": no_union,
    "skip-on-dead-letter-failure": skip_on_dead_letter_failure,
    "no-dedupe": no_dedupe,
    "truncate-on-a-later-start": truncate_on_a_later_start,
    "no-bound-on-requests": no_bound_on_requests,
}
