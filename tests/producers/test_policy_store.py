from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.policies import rollout
from producers.errors import PolicyRefused
from producers.policy_store import PolicyFile, PolicyStore, verify
from schemas.events import PolicyVersion
from tests.producers.fakes import announcement, rolled_out, sent

DATA = b"weights of a policy"


def check(announced: PolicyVersion, data: bytes) -> None:
    verify(announced, len(data), hashlib.sha256(data).hexdigest())


def add(store: PolicyStore, version: int, data: bytes = DATA) -> PolicyFile:
    announced = sent(announcement(version, data))
    store.part(announced.event).write_bytes(data)
    return store.adopt(announced)


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=200), change=st.data())
def test_any_altered_byte_is_refused(data: bytes, change: st.DataObject) -> None:
    check(announcement(1, data), data)
    place = change.draw(st.integers(0, len(data) - 1))
    altered = data[:place] + bytes([data[place] ^ change.draw(st.integers(1, 255))]) + data[place + 1 :]
    with pytest.raises(PolicyRefused, match="sha256"):
        check(announcement(1, data), altered)


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"!", b""])
def test_a_truncated_or_padded_artifact_is_refused_by_its_size(data: bytes) -> None:
    with pytest.raises(PolicyRefused, match=rf"{len(data)} bytes, announced were {len(DATA)}"):
        check(announcement(1, DATA), data)


def test_a_stored_policy_is_found_again_by_a_new_store_with_its_announcement_as_sent(tmp_path: Path) -> None:
    stored = add(PolicyStore(tmp_path), 3)
    later = PolicyStore(tmp_path)
    (announced,) = later.stored()
    assert announced.event == stored.announcement
    assert announced.body == sent(stored.announcement).body
    found = later.find(announced.event)
    assert found == stored
    assert (stored.policy, stored.version, stored.read()) == ("line", 3, DATA)


def test_a_file_that_rotted_on_disk_is_neither_found_nor_read(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    file = add(store, 1)
    file.path.write_bytes(DATA[:-1] + b"?")
    assert store.find(file.announcement) is None
    with pytest.raises(PolicyRefused, match="sha256"):
        file.read()


def test_a_part_is_no_artifact_and_neither_is_one_without_its_announcement(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    store.part(announcement(1, DATA)).write_bytes(DATA)
    file = add(store, 2)
    file.path.with_suffix(".json").write_text("{}")
    assert store.stored() == []
    assert store.find(announcement(1, DATA)) is None


def test_the_newest_by_arrival_are_kept_and_what_is_protected(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path, keep=2)
    files = [add(store, version) for version in (9, 2, 10, 3)]
    for age, file in enumerate(files):
        os.utime(file.path, ns=(age, age))
    store.part(announcement(11, DATA)).write_bytes(b"half")
    store.prune([files[0].announcement])
    assert [file.path.exists() for file in files] == [True, False, False, True]
    assert [announced.event.version for announced in store.stored()] == [3, 9]
    assert list(tmp_path.glob("*.part")) == []


def test_rollout_and_active_policy_survive_as_they_were_sent(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    assert (store.rollout(), store.active()) == (None, None)
    state, active = sent(rolled_out(rollout.hold("line", 3))), sent(announcement(3, DATA))
    store.save_rollout(state)
    store.save_active(active)
    found, ran = PolicyStore(tmp_path).rollout(), PolicyStore(tmp_path).active()
    assert found is not None
    assert ran is not None
    assert (found.event, found.body, ran.event) == (state.event, state.body, active.event)


def test_a_rollout_that_cannot_be_read_is_not_one_that_never_was(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    for damaged in (b"\xff", b"{}", b""):
        (tmp_path / "rollout.json").write_bytes(damaged)
        (tmp_path / "active.json").write_bytes(damaged)
        with pytest.raises(PolicyRefused, match=r"rollout\.json cannot be read"):
            store.rollout()
        assert store.active() is None
