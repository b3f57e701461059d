from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Mapping

import pytest

from learner.errors import InvalidArtifact, JournalMissing
from learner.journal import Entry, Journal, Segment, path_to
from learner.patience import Patience
from schemas.events import PolicyVersion
from tests.learner.test_checkpoint import version
from tests.learner.test_payloads import Shelf

PARENTS: Mapping[int, int | None] = {1: None, 2: 1, 3: 2, 4: 2, 5: 4}
"""Version 3 was given up."""
PUBLISHED: dict[int, PolicyVersion] = {number: version(number) for number in PARENTS}


class Shelves(Shelf):
    """A shelf that takes objects, too."""

    def put(self, key: str, data: bytes) -> str:
        self._objects[key] = data
        return key


@pytest.fixture
def shelf() -> Shelves:
    return Shelves([])


@pytest.fixture
def journal(shelf: Shelves) -> Journal:
    made = Journal(shelf, "default", Patience(threading.Event()))
    for number, parent in PARENTS.items():
        made.seal(
            Segment(
                policy="default",
                version=number,
                parent=parent,
                sha256=PUBLISHED[number].sha256,
                learner_step=number * 10,
                config="{}",
                machine="new" if number > 2 else "old",
                entries=(Entry(learner_step=number),),
            )
        )
    return made


def test_a_way_goes_along_the_parents_and_knows_its_machines(journal: Journal) -> None:
    way = path_to(5, PUBLISHED, journal)
    assert [segment.version for segment in way] == [1, 2, 4, 5]
    assert len(way) == 4
    assert way.machines == ("old", "new")
    assert path_to(5, PUBLISHED, journal, after=2).machines == ("new",)
    assert list(path_to(2, PUBLISHED, journal, after=2)) == []
    with pytest.raises(JournalMissing, match="version 5 does not come from version 3"):
        path_to(5, PUBLISHED, journal, after=3)
    with pytest.raises(JournalMissing, match="version 6 was never published; published are 1 to 5"):
        path_to(6, PUBLISHED, journal)


def test_segments_are_read_when_they_are_come_to_and_let_go_of(
    journal: Journal, shelf: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Segment]] = []
    read = journal.segment

    def segment(announced: PolicyVersion) -> Segment:
        found = read(announced)
        alive.append(weakref.ref(found))
        return found

    def held() -> int:
        gc.collect()
        return sum(one() is not None for one in alive)

    monkeypatch.setattr(journal, "segment", segment)
    way = path_to(5, PUBLISHED, journal)
    assert held() == 0, "to know the way takes none of them"
    assert max([held() for _ in way]) <= 2, "the one at work, and the one before"
    assert Counter(shelf.asked).most_common(1)[0][1] == 2


def test_what_is_missing_or_no_journal_is_said_before_the_first_is_asked_for(
    journal: Journal, shelf: Shelves
) -> None:
    key = next(key for key in shelf._objects if "/00000001-" in key)
    for data, error in ((b"{}", InvalidArtifact), (None, JournalMissing)):
        if data is None:
            del shelf._objects[key]
        else:
            shelf.put(key, data)
        with pytest.raises(error):
            path_to(5, PUBLISHED, journal)
        assert len(path_to(5, PUBLISHED, journal, after=2)) == 2
