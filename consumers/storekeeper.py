"""What a partition number asks of the object store, a few episodes at a time and until a deadline.

What succeeded is kept whatever becomes of the rest, so a slow store costs turns and no work is done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from consumers.assembly import Outcome, Sealed
from consumers.graveyard import Patient
from consumers.history import Graveyard
from consumers.labels import announced_owner
from consumers.partition import OwnedPartition
from consumers.ranges import RangeSet
from consumers.storing import CannotStore, Stored, announced_before, attempt, store_wave
from infra.clock import Clock
from infra.errors import InfraError
from infra.object_store import ObjectStore

UPLOADS = 8
"""Requests to the store at the same time; they wait for the store, not for this machine."""
WAVE = 2 * UPLOADS
"""Episodes looked up or stored before the time is looked at again."""
WAVE_BYTES = 64 * 2**20
"""Memory of episodes that are stored together; their files take as much again."""


class Storekeeper:
    """Decides and stores for one partition number at a time.

    Args:
        objects: the store.
        graveyard: is asked, from this thread, when objects contradict one another.
        clock: deadlines are its monotonic time.
        pool: where the store is waited for.
        beat: is called before each wave; the longest takes a few requests, each with its own bound.

    Raises (all methods):
        InfraError, CannotStore: some of it could not be done. It waits; what was done is kept.
    """

    def __init__(
        self,
        objects: ObjectStore,
        graveyard: Graveyard,
        clock: Clock,
        pool: Executor,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.objects = objects
        self._graveyard, self._clock, self._pool, self._beat = graveyard, clock, pool, beat

    def _has_time(self, until: float) -> bool:
        self._beat()
        return self._clock.monotonic() < until

    def _patient(self, until: float) -> Patient:
        return Patient(self._graveyard, self._beat, lambda: self._has_time(until))

    def is_done(self, owned: OwnedPartition) -> bool:
        """Whether nothing is left to do here."""
        return not (owned.unstored() or owned.unowned_labels())

    def decide(self, owned: OwnedPartition, until: float, count: Callable[[Outcome], None]) -> None:
        """Let rejected records go to dead-letters, unless the newest revision of their episode tells of them."""
        while (episodes := owned.assembly.undecided()[:WAVE]) and self._has_time(until):
            befores = announced_before(
                episodes,
                owned.emitted,
                owned.committed,
                self.objects,
                graveyard=self._patient(until),
                pool=self._pool,
            )
            for episode, before in zip(episodes, befores, strict=True):
                if isinstance(before, RangeSet):
                    count(owned.decide(episode, before))
            _raise_first(befores)

    def apply_labels(self, owned: OwnedPartition, until: float) -> None:
        """Hand labels to their episodes."""
        owned.apply_labels({})
        while (wanted := owned.unowned_labels()[:WAVE]) and self._has_time(until):
            lookups = [self._pool.submit(announced_owner, name, owned.committed, self.objects) for name in wanted]
            owners = [attempt(lookup.result, of=name) for name, lookup in zip(wanted, lookups, strict=True)]
            owned.apply_labels(
                {
                    name: owner
                    for name, owner in zip(wanted, owners, strict=True)
                    if not isinstance(owner, InfraError | CannotStore)
                }
            )
            _raise_first(owners)

    def store(self, owned: OwnedPartition, until: float) -> None:
        """Store sealed episodes; revisions of the same episode one after the other."""
        outbox = owned.outbox
        while outbox.sealed and self._has_time(until):
            wave = _wave(outbox.sealed)
            results = store_wave(
                wave,
                owned.emitted,
                owned.committed,
                self.objects,
                self._clock,
                graveyard=self._patient(until),
                pool=self._pool,
            )
            outbox.sealed[: len(wave)] = [
                sealed for sealed, result in zip(wave, results, strict=True) if not isinstance(result, Stored)
            ]
            for result in results:
                if isinstance(result, Stored):
                    owned.keep(result)
            _raise_first(results)


def _raise_first(results: Sequence[object]) -> None:
    for result in results:
        if isinstance(result, InfraError | CannotStore):
            raise result


def _wave(sealed: Sequence[Sealed]) -> list[Sealed]:
    """The longest beginning in which no episode comes twice and not too much is read back; one at least."""
    wave: list[Sealed] = []
    seen: set[str] = set()
    size = 0
    for item in sealed[:WAVE]:
        size += item.episode.size
        if item.episode.episode_id in seen or (wave and size > WAVE_BYTES):
            break
        seen.add(item.episode.episode_id)
        wave.append(item)
    return wave
