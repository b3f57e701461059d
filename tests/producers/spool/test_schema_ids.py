"""Schema ids that were learned once are known without the registry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import RegistryUnavailable
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.schema_ids import KnownIds, RegistryIds
from schemas.codec import AvroSchema
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS

STEP, BOUNDARY = NEWEST_KINDS[ROBOT_STEPS], NEWEST_KINDS[ROBOT_EPISODES]


class Registry:
    """Answers, or does not."""

    def __init__(self, ids: dict[str, int] | None) -> None:
        self.ids = ids

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        if self.ids is None:
            raise RegistryUnavailable("http://registry: away")
        return self.ids[topic]


def ids(path: Path, registry: Registry, url: str = "http://registry") -> RegistryIds:
    return RegistryIds(registry, KnownIds(path / "schema-ids.json", url))


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a robot was on line before."""
    found = ids(tmp_path, Registry({topic: number for number, topic in enumerate(NEWEST_KINDS, 40)}))
    eventually(lambda: knows_all(KnownIds(tmp_path / "schema-ids.json", "http://registry")))
    eventually(lambda: knows_all(found))
    return tmp_path


def knows_all(ids: KnownIds | RegistryIds) -> bool:
    """Schemas are asked for in any order."""
    return all(ids.find(kind) is not None for kind in NEWEST_KINDS.values())


def test_a_robot_that_was_on_line_before_knows_its_ids_without_the_registry_and_says_that_it_is_away(
    path: Path,
) -> None:
    found = ids(path, Registry(None))
    assert found.find(STEP) == 40 + list(NEWEST_KINDS).index(ROBOT_STEPS)
    eventually(lambda: found.error() is not None)
    assert "away" in (found.error() or "")


def test_an_id_is_on_disk_before_it_is_used_although_the_registry_answers_no_other(tmp_path: Path) -> None:
    class Hangs(Registry):
        def id_of(self, topic: str, schema: AvroSchema) -> int:
            assert not answered.is_set() or go_on.wait(30)
            answered.set()
            return 5

    answered, go_on = threading.Event(), threading.Event()
    found = ids(tmp_path, Hangs({}))
    try:
        eventually(lambda: any(found.find(kind) is not None for kind in NEWEST_KINDS.values()))
        kept = KnownIds(tmp_path / "schema-ids.json", "http://registry")
        assert [kept.find(kind) for kind in NEWEST_KINDS.values()].count(5) == 1
    finally:
        go_on.set()


def test_what_the_registry_says_replaces_what_was_kept(path: Path) -> None:
    found = ids(path, Registry(dict.fromkeys(NEWEST_KINDS, 7)))
    eventually(lambda: found.find(STEP) == 7)
    eventually(lambda: KnownIds(path / "schema-ids.json", "http://registry").find(STEP) == 7)


def test_another_registry_s_ids_and_another_schema_s_do_not_count(path: Path) -> None:
    assert ids(path, Registry(None), "http://other").find(STEP) is None
    altered = STEP.__class__(STEP.topic, STEP.record, STEP.version, STEP.schema + " ")
    assert KnownIds(path / "schema-ids.json", "http://registry").find(altered) is None


def test_a_password_that_an_address_once_carried_leaves_the_file_and_the_ids_stay(path: Path) -> None:
    file = path / "schema-ids.json"
    file.write_text(file.read_text().replace("//registry", "https://me:hush@registry"))
    assert KnownIds(file, "http://registry/").find(STEP) is not None
    assert "hush" not in file.read_text()
    assert KnownIds(file, "http://registry").find(STEP) is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"registry": 5}', b'{"registry": "http://[", "ids": {}}', b"\xff\xfe"]
)
def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "schema-ids.json").write_bytes(content)
    found = ids(tmp_path, Registry(dict.fromkeys(NEWEST_KINDS, 9)))
    eventually(lambda: found.find(STEP) == 9)
