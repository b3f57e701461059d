from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import ObjectMissing
from infra.policies import rollout
from infra.policies.rollout import Change
from infra.settings import Settings
from learner.checkpoint import CheckpointStore, choose
from learner.errors import CheckpointMissing
from learner.journal import Entry, Journal
from learner.patience import Patience
from learner.restoring import Obeyed, Rollbacks, past_of, tip_of
from schemas.events import PolicyVersion, Restored
from tests.learner.synthetic import START
from tests.learner.test_checkpoint import Bucket, checkpoint, version
from tests.producers.fakes import announcement


def published(*parents: int | None) -> dict[int, PolicyVersion]:
    """Version n has the n-th of these as its parent."""
    return {n: announcement(n, b"%d" % n, parent_version=parent) for n, parent in enumerate(parents, start=1)}


def test_without_a_rollback_the_newest_goes_on() -> None:
    versions = published(None, 1, 2)
    assert tip_of(versions, Obeyed()) == 3
    assert list(past_of(versions, 3)) == [3, 2, 1]
    assert tip_of({}, Obeyed()) == 0
    assert past_of({}, 0) == {}


def test_after_a_rollback_what_was_given_up_is_no_ancestor() -> None:
    versions = published(None, 1, 2, 3, 4)
    obeyed = Obeyed(generation=7, version=2, newest=5)
    assert tip_of(versions, obeyed) == 2
    assert list(past_of(versions, 2)) == [2, 1]
    later = published(None, 1, 2, 3, 4, 2, 6)
    assert tip_of(later, obeyed) == 7
    assert list(past_of(later, 7)) == [7, 6, 2, 1]


@given(st.data())
def test_the_past_is_a_chain_of_parents(data: st.DataObject) -> None:
    parents = [None, *(data.draw(st.integers(1, n)) for n in range(1, data.draw(st.integers(1, 8))))]
    versions = published(*parents)
    past = list(past_of(versions, len(parents)).values())
    assert [version.parent_version for version in past] == [*(version.version for version in past[1:]), None]


class Killed(BaseException):
    """As SIGKILL: nothing after it is done."""


class Mortal(Bucket):
    """A bucket whose user dies before the effect of that number."""

    effects = 0
    dies_before = 0

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(key)
        return super().get(key)

    def put(self, key: str, data: bytes) -> str:
        self._count()
        return super().put(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)

    def _count(self) -> None:
        self.effects += 1
        if self.effects == self.dies_before:
            raise Killed


@dataclass
class Learner:
    """What a learner does about rollbacks when it starts, with a rollout that says `mark`."""

    bucket: Mortal
    mark: Restored | None
    way: bool = True
    """Whether the version that it goes back to can be had."""

    def start(self, versions: dict[int, PolicyVersion]) -> int:
        """The version that it goes on from."""
        patience = Patience(threading.Event())
        rollbacks = Rollbacks(Settings(), self.bucket, "default", patience)
        state = rollout.hold("default", 1)(None, Change("ada", "why", START))
        rollbacks._state = lambda: state.model_copy(update={"restored": self.mark})  # type: ignore[method-assign]
        checkpoints = CheckpointStore(self.bucket, "default", patience, keep=9)
        journal = Journal(self.bucket, "default", patience)
        past = rollbacks.past(versions)
        found = checkpoints.newest_first(max(versions) if rollbacks.ordered else None)
        chosen = choose(found if self.way else iter(()), past, max(versions) + 1)
        assert chosen is not None

        def give_up(version: int, newest: int) -> None:
            checkpoints.give_up(newest)
            journal.drop(version)

        rollbacks.obey(chosen.announcement.version, give_up)
        assert not rollbacks.ordered
        return chosen.announcement.version


def left(bucket: Bucket) -> tuple[set[int], tuple[Entry, ...]]:
    """Versions that have a checkpoint, and what was decided after version 2."""
    patience = Patience(threading.Event())
    found = CheckpointStore(bucket, "default", patience, keep=9).newest_first()
    return {one.announcement.version for one in found}, Journal(bucket, "default", patience).tail(2)


def with_one_sealed() -> tuple[Mortal, dict[int, PolicyVersion]]:
    """Versions 1 to 3 with checkpoints, decisions after 2, and 4, of parent 3, sealed and not announced."""
    bucket, patience = Mortal(), Patience(threading.Event())
    store = CheckpointStore(bucket, "default", patience, keep=9)
    versions = {n: version(n).model_copy(update={"parent_version": n - 1 or None}) for n in range(1, 5)}
    for number in range(1, 5):
        store.save(replace(checkpoint(number), announcement=versions[number]))
    journal = Journal(bucket, "default", patience)
    journal.take_over(2, "00000001-a", (Entry(learner_step=1, forgotten=("given up",)),))
    journal.append(Entry(learner_step=2, forgotten=("given up, too",)))
    bucket.effects = 0
    return bucket, {number: versions[number] for number in (1, 2, 3)}


def test_what_was_sealed_and_not_announced_is_announced_where_nothing_is_rolled_back() -> None:
    bucket, versions = with_one_sealed()
    assert Learner(bucket, None).start(versions) == 4
    assert left(bucket)[0] == {1, 2, 3, 4}


@pytest.mark.parametrize("to", [2, 3], ids=["an earlier one", "the newest"])
@pytest.mark.parametrize("withdrawn", [False, True])
@pytest.mark.parametrize("dies_before", range(1, 6))
def test_a_rollback_is_obeyed_once_and_never_half_wherever_a_kill_falls(
    dies_before: int, withdrawn: bool, to: int
) -> None:
    bucket, versions = with_one_sealed()
    mark, started = Restored(generation=7, version=to), None
    bucket.dies_before = dies_before
    with suppress(Killed):
        started = Learner(bucket, mark).start(versions)
    assert started in (None, to)
    obeyed = "restored/default.json" in bucket.objects
    assert obeyed == (started is not None)
    if obeyed or not withdrawn:
        assert Learner(bucket, None if withdrawn else mark).start(versions) == to
        assert left(bucket)[0] == {1, 2, 3}
        assert (left(bucket)[1] == ()) == (to == 2)
    else:
        assert Learner(bucket, None).start(versions) in (3, 4)
    written = dict(bucket.objects)
    Learner(bucket, None if withdrawn else mark).start(versions)
    assert bucket.objects == written, "once"


def test_a_core_that_stands_at_an_older_version_obeys_nothing() -> None:
    bucket, versions = with_one_sealed()
    CheckpointStore(bucket, "default", Patience(threading.Event()), keep=9).give_up(1)
    before = dict(bucket.objects)
    with pytest.raises(CheckpointMissing, match=r"cannot be rolled back to version 2: .* of version 1, "):
        Learner(bucket, Restored(generation=7, version=2)).start(versions)
    assert bucket.objects == before


def test_a_rollback_that_cannot_be_obeyed_is_withdrawn_without_a_trace() -> None:
    bucket, versions = with_one_sealed()
    before, mark = dict(bucket.objects), Restored(generation=7, version=2)
    for _ in range(2):
        with pytest.raises(CheckpointMissing, match="sop policies promote"):
            Learner(bucket, mark, way=False).start(versions)
    assert bucket.objects == before
    assert Learner(bucket, None).start(versions) == 4


def test_a_second_rollback_to_the_same_version_gives_up_what_was_sealed_since() -> None:
    bucket, versions = with_one_sealed()
    assert Learner(bucket, Restored(generation=7, version=2)).start(versions) == 2
    again = version(4).model_copy(update={"parent_version": 2})
    CheckpointStore(bucket, "default", Patience(threading.Event()), keep=9).save(
        replace(checkpoint(4), announcement=again)
    )
    assert Learner(bucket, Restored(generation=8, version=2)).start(versions) == 2
    assert left(bucket)[0] == {1, 2, 3}
