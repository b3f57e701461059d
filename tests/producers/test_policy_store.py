from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.errors import PolicyRefused
from producers.policy_store import PolicyStore, verify
from tests.producers.fakes import announcement

DATA = b"weights of a policy"


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=200), change=st.data())
def test_any_altered_byte_is_refused(data: bytes, change: st.DataObject) -> None:
    verify(announcement(1, data), data)
    place = change.draw(st.integers(0, len(data) - 1))
    altered = data[:place] + bytes([data[place] ^ change.draw(st.integers(1, 255))]) + data[place + 1 :]
    with pytest.raises(PolicyRefused, match="sha256"):
        verify(announcement(1, data), altered)


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"!", b""])
def test_a_truncated_or_padded_artifact_is_refused_by_its_size(data: bytes) -> None:
    with pytest.raises(PolicyRefused, match=rf"{len(data)} bytes, announced were {len(DATA)}"):
        verify(announcement(1, DATA), data)


def test_what_is_refused_leaves_nothing_on_disk(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "policies")
    with pytest.raises(PolicyRefused):
        store.add(announcement(1, DATA), b"other")
    assert list((tmp_path / "policies").iterdir()) == []


def test_a_stored_policy_is_found_again_by_a_new_store(tmp_path: Path) -> None:
    stored = PolicyStore(tmp_path).add(announcement(3, DATA), DATA)
    found = PolicyStore(tmp_path).find(announcement(3, DATA))
    assert found == stored
    assert (stored.policy, stored.version, stored.read()) == ("line", 3, DATA)


def test_a_file_that_rotted_on_disk_is_neither_found_nor_read(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    file = store.add(announcement(1, DATA), DATA)
    file.path.write_bytes(DATA[:-1] + b"?")
    assert store.find(announcement(1, DATA)) is None
    with pytest.raises(PolicyRefused, match="sha256"):
        file.read()


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path, keep=2)
    files = [store.add(announcement(version, DATA), DATA) for version in (2, 3, 9, 10)]
    assert [file.path.exists() for file in files] == [False, False, True, True]
