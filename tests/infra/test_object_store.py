"""Objects on a real store: whole or missing, under their keys, and never waited for without bound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from infra.clock import ManualClock
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.local.stack import Stack
from infra.object_store import ObjectStore, sha256_hex
from infra.pace import Pace
from infra.settings import S3Settings, Settings


@pytest.fixture
def store(settings: Settings, name: str) -> ObjectStore:
    """A bucket that is new."""
    made = ObjectStore(settings.s3.model_copy(update={"bucket": name}))
    assert made.ensure_bucket()
    return made


@pytest.fixture
def frozen(stack: Stack, settings: Settings, name: str) -> Iterator[ObjectStore]:
    """A store that takes connections and says nothing."""
    ObjectStore(settings.s3.model_copy(update={"bucket": name})).ensure_bucket()
    stack.pause("object_store")
    try:
        yield ObjectStore(settings.s3.model_copy(update={"bucket": name, "timeout": 0.3}))
    finally:
        stack.resume("object_store")


def test_an_object_is_got_back_as_it_was_put_and_replaced_by_a_later_one(store: ObjectStore) -> None:
    data = bytes(range(256)) * 4096
    uri = store.put("episodes/a/1.parquet", data)
    assert uri == f"s3://{store.bucket}/episodes/a/1.parquet"
    assert store.get("episodes/a/1.parquet") == data
    store.put("episodes/a/1.parquet", b"later")
    assert store.get("episodes/a/1.parquet") == b"later"
    store.put("empty", b"")
    assert store.get("empty") == b""


def test_an_object_written_by_another_client_is_seen_at_once(store: ObjectStore, settings: Settings) -> None:
    other = ObjectStore(settings.s3.model_copy(update={"bucket": store.bucket}))
    assert not store.exists("a/b")
    assert store.list("a") == []
    other.put("a/b", b"1")
    assert store.exists("a/b")
    assert store.list("a") == ["a/b"]
    other.delete("a/b")
    assert not store.exists("a/b")


def test_keys_are_listed_under_their_folder_sorted_and_no_neighbours(store: ObjectStore) -> None:
    for key in ("episodes/b/2", "episodes/b/1", "episodes/a/1", "episodes-2/a/1", "policies/1"):
        store.put(key, b"")
    assert store.list("episodes") == ["episodes/a/1", "episodes/b/1", "episodes/b/2"]
    assert store.list("episodes/") == store.list("episodes")
    assert store.list("episodes/b") == ["episodes/b/1", "episodes/b/2"]
    assert store.list("nothing") == []


def test_what_is_not_there_is_missing_and_deleting_it_is_fine(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        store.get("none")
    assert not store.exists("none")
    store.delete("none")
    store.put("some", b"1")
    store.delete("some")
    with pytest.raises(ObjectMissing):
        store.get("some")


def test_a_bucket_is_made_once_and_a_missing_one_is_said_so(settings: Settings, name: str) -> None:
    store = ObjectStore(settings.s3.model_copy(update={"bucket": name}))
    store.ping()
    with pytest.raises(ObjectStoreUnavailable, match="404 Not Found") as refused:
        store.put("key", b"")
    assert "\n" not in str(refused.value)
    assert store.ensure_bucket()
    assert not store.ensure_bucket()
    assert not ObjectStore(settings.s3.model_copy(update={"bucket": name})).ensure_bucket()


def test_an_address_is_turned_into_its_key_and_another_buckets_is_refused() -> None:
    store = ObjectStore(S3Settings(bucket="one", endpoint_url="http://127.0.0.1:1"))
    assert store.key(store.uri("a/b c")) == "a/b c"
    for uri in ("s3://one-more/a", "s3://two/one/a", "file://one/a", "one/a"):
        with pytest.raises(ValueError, match="not in bucket one"):
            store.key(uri)


def test_a_digest_is_the_sha256_of_the_bytes_in_hex() -> None:
    assert sha256_hex(b"sop") == hashlib.sha256(b"sop").hexdigest()


def test_a_frozen_store_is_unavailable_within_the_bound_and_usable_afterwards(
    stack: Stack, frozen: ObjectStore, settings: Settings
) -> None:
    for call in (
        lambda: frozen.put("key", bytes(100_000)),
        lambda: frozen.get("key"),
        lambda: frozen.exists("key"),
        lambda: frozen.list("folder"),
        lambda: frozen.delete("key"),
        frozen.ping,
        frozen.ensure_bucket,
    ):
        with pytest.raises(ObjectStoreUnavailable):
            call()
    for call in (lambda: frozen.put("key", bytes(100_000)), lambda: frozen.get("key")):
        with pytest.raises(ObjectStoreUnavailable, match=r"not done within SOP_S3__TIMEOUT, 0\.3 s"):
            call()
    stack.resume("object_store")
    thawed = ObjectStore(settings.s3.model_copy(update={"bucket": frozen.bucket}))
    thawed.put("after", b"1")
    assert thawed.get("after") == b"1"


def test_a_store_that_is_down_is_unavailable_and_not_a_store_without_the_bucket() -> None:
    store = ObjectStore(
        S3Settings(endpoint_url="http://127.0.0.1:1", access_key_id="a", secret_access_key=SecretStr("b"))
    )
    for call in (store.ping, store.ensure_bucket, lambda: store.exists("key")):
        with pytest.raises(ObjectStoreUnavailable) as refused:
            call()
        assert "TIMEOUT" not in str(refused.value)


def test_a_cap_makes_a_put_wait_for_those_before_it_and_readers_never(
    store: ObjectStore, settings: Settings
) -> None:
    waits: list[float] = []
    s3 = settings.s3.model_copy(update={"bucket": store.bucket})
    capped = ObjectStore(s3, Pace(0.001, ManualClock()), waits.append)
    capped.put("first", b"1")
    assert waits == []
    capped.put("second", b"2")
    assert waits.pop() == 1000
    assert capped.get("first") == b"1"
    assert waits == []


def test_the_cap_of_robots_frames_makes_no_other_process_wait(store: ObjectStore, settings: Settings) -> None:
    waits: list[float] = []
    s3 = settings.s3.model_copy(update={"bucket": store.bucket, "max_put_bytes_per_second": 0.001})
    server = ObjectStore(s3, wait=waits.append)
    server.put("first", b"1")
    server.put("second", b"2")
    assert waits == []


def test_a_wrong_key_is_refused_and_does_not_look_like_an_absence(settings: Settings, store: ObjectStore) -> None:
    wrong = {"secret_access_key": SecretStr("wrong"), "bucket": store.bucket}
    stranger = ObjectStore(settings.s3.model_copy(update=wrong))
    store.put("key", b"1")
    for call in (
        stranger.ping,
        stranger.ensure_bucket,
        lambda: stranger.get("key"),
        lambda: stranger.exists("key"),
    ):
        with pytest.raises(ObjectStoreUnavailable):
            call()
