from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from infra.errors import InfraError
from infra.object_store import ObjectStore
from learner.checkpoint import Announced, Checkpoint, CheckpointStore, choose
from learner.errors import CheckpointMissing, InvalidArtifact, VersionsLost
from learner.patience import Patience
from learner.policies.artifact import pack_json, unpack_json
from learner.set_aside import SetAside
from schemas.events import PolicyVersion, Position
from tests.learner.synthetic import START, make_episode


def version(number: int, sha256: str = "") -> PolicyVersion:
    return PolicyVersion(
        policy="default",
        version=number,
        artifact_uri=f"s3://sop/policies/default/{number}",
        sha256=sha256 or f"{number:064x}",
        size_bytes=1,
        algorithm="hg-dagger",
        learner_step=number * 10,
        episodes_admitted=1,
        offsets=(Position(partition=2, offset=7),),
        config="{}",
        code_version="0.1.0",
        published_at=START,
    )


def checkpoint(number: int, sha256: str = "") -> Checkpoint:
    aside = SetAside()
    aside.put(make_episode(1).record)
    return Checkpoint(version(number, sha256), {"step": number}, {"a": np.arange(3)}, aside)


def published(*numbers: int) -> dict[int, PolicyVersion]:
    return {number: version(number) for number in numbers}


def test_checkpoint_is_read_as_it_was_written() -> None:
    written = checkpoint(3)
    read = Checkpoint.unpack(written.pack())
    assert read.announcement == written.announcement
    assert read.core == written.core
    assert list(read.set_aside) == list(written.set_aside)
    assert len(read.set_aside) == 1
    assert read.positions == {2: 7}
    np.testing.assert_array_equal(read.tensors["a"], np.arange(3))
    assert read.pack() == written.pack()


@pytest.mark.parametrize("data", [b"", checkpoint(1).pack()[:-1], pack_json({"format": 1}, {"a": np.zeros(1)})])
def test_bytes_that_are_no_checkpoint_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArtifact):
        Checkpoint.unpack(data)


def test_a_checkpoint_of_another_format_is_refused_with_what_to_do() -> None:
    document, tensors = unpack_json(checkpoint(1).pack())
    with pytest.raises(
        InvalidArtifact, match=r"has format 1, this software reads 2: go on with .* or let this one"
    ):
        Checkpoint.unpack(pack_json(document | {"format": 1, "set_aside": []}, tensors))


class Bucket(ObjectStore):
    """Keys in memory. The real store is met in integration tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> str:
        self.objects[key] = data
        return key

    def get(self, key: str) -> bytes:
        return self.objects[key]

    def list(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def delete(self, key: str) -> None:
        del self.objects[key]


def stored(keep: int, *made: Checkpoint) -> tuple[CheckpointStore, Callable[[], list[tuple[int, str]]]]:
    """A store with these, and what it holds: versions, and how their hashes begin."""
    store = CheckpointStore(Bucket(), "default", Patience(threading.Event()), keep=keep)
    for one in made:
        store.save(one)

    def held() -> list[tuple[int, str]]:
        found = [one.announcement for one in store.newest_first()]
        return sorted((one.version, one.sha256[-1]) for one in found)

    return store, held


def announced(*numbers: int, parents: Mapping[int, int | None] = {}) -> dict[int, Announced]:
    return {
        number: Announced(one.sha256, parents.get(number, number - 1 or None))
        for number, one in published(*numbers).items()
    }


@pytest.mark.parametrize(("newest", "kept"), [(0, ()), (0, (1,)), (3, (1, 2, 3)), (3, (3, 4)), (9, (7,))])
def test_what_was_announced_or_comes_next_may_be_there(newest: int, kept: tuple[int, ...]) -> None:
    store, _ = stored(9, *map(checkpoint, kept))
    store.require_announced(newest, newest)
    store.require_announced(newest, newest + 1)


@pytest.mark.parametrize(
    ("newest", "kept", "sealed"), [(0, (2,), 0), (0, (1, 7), 7), (3, (3, 5), 5), (3, (1,), 5), (0, (), 2)]
)
def test_a_line_whose_announcements_are_gone_gives_no_number_a_second_time(
    newest: int, kept: tuple[int, ...], sealed: int
) -> None:
    """Not every version has a checkpoint."""
    store, _ = stored(9, *map(checkpoint, kept))
    last = max(sealed, *kept, 0)
    said = rf"line of {last} versions, .* (no version|up to 3) .*restore the topic"
    with pytest.raises(VersionsLost, match=said):
        store.require_announced(newest, sealed)


@pytest.mark.parametrize("first", ["0", "f"])
def test_what_was_never_announced_does_not_count_among_the_newest(first: str) -> None:
    """A learner that had been taken over left a checkpoint of the same number, before or after ours by name."""
    store, held = stored(1, checkpoint(2), checkpoint(3), checkpoint(3, sha256=first * 63 + "e"))
    store.prune(announced(1, 2, 3))
    assert held() == [(3, "3")]


def test_the_newest_and_what_is_needed_and_what_may_be_announced_yet_are_kept() -> None:
    store, held = stored(2, *(checkpoint(number) for number in (1, 2, 4, 5, 6)), checkpoint(2, sha256="e" * 64))
    store.prune(announced(1, 2, 3, 4, 5), needed=[3])
    assert held() == [(2, "2"), (4, "4"), (5, "5"), (6, "6")]


def test_what_is_needed_is_reached_from_an_ancestor_and_not_from_what_a_rollback_gave_up() -> None:
    store, held = stored(1, *(checkpoint(number) for number in (3, 6, 9, 12)))
    store.prune(announced(*range(1, 13), parents={10: 5}), needed=[11, 2])
    assert held() == [(3, "3"), (12, "c")], "11 comes from 5, and nothing leads to 2"


def test_newest_published_version_is_continued() -> None:
    chosen = choose(iter([checkpoint(3), checkpoint(2)]), published(1, 2, 3))
    assert chosen is not None
    assert chosen.announcement.version == 3


def test_version_that_was_never_announced_is_announced_after_all() -> None:
    chosen = choose(iter([checkpoint(4), checkpoint(3)]), published(1, 2, 3))
    assert chosen is not None
    assert chosen.announcement.version == 4
    first = choose(iter([checkpoint(1)]), {})
    assert first is not None
    assert first.announcement.version == 1


def test_checkpoint_of_a_learner_that_was_taken_over_is_passed_over() -> None:
    chosen = choose(iter([checkpoint(3, sha256="f" * 64), checkpoint(3), checkpoint(2)]), published(1, 2, 3))
    assert chosen is not None
    assert chosen.announcement == version(3)


def test_nothing_published_and_nothing_kept_starts_afresh() -> None:
    assert choose(iter([]), {}) is None


def test_published_line_without_a_checkpoint_is_left_to_an_operator() -> None:
    with pytest.raises(CheckpointMissing, match="version 3 was published") as caught:
        choose(iter([checkpoint(3, sha256="f" * 64)]), published(1, 2, 3))
    assert isinstance(caught.value, InfraError), "the command line says it in one line"


def test_after_a_rollback_neither_what_was_given_up_nor_what_follows_it_is_continued() -> None:
    past = {n: version(n).model_copy(update={"parent_version": n - 1 or None}) for n in (1, 2)}
    unannounced = checkpoint(5)
    from_given_up = replace(
        unannounced, announcement=unannounced.announcement.model_copy(update={"parent_version": 4})
    )
    chosen = choose(iter([from_given_up, checkpoint(4), checkpoint(3), checkpoint(2)]), past, 5)
    assert chosen is not None
    assert chosen.announcement.version == 2
    from_restored = replace(
        unannounced, announcement=unannounced.announcement.model_copy(update={"parent_version": 2})
    )
    assert choose(iter([from_restored, checkpoint(4), checkpoint(2)]), past, 5) is from_restored
