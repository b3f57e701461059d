"""`sop gc` on real servers: what nothing names goes once it is old enough, what anything names stays."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.audit.gc import Collected, collect
from consumers.payload import METADATA_KEY
from consumers.tombstone import is_tombstone
from infra.errors import DeploymentConflict
from infra.kafka import EventProducer, OutRecord
from infra.object_store import sha256_hex
from infra.registry import Registry
from schemas import codec
from schemas.events import PolicyVersion
from schemas.topics import POLICY_VERSIONS, TRAINING_EPISODES
from tests.consumers.audit.graves import put_tombstone
from tests.consumers.integration.pipeline import Pipeline

pytestmark = pytest.mark.timeout(240)

NO_GRACE = timedelta(0)


def gc(pipeline: Pipeline, grace: timedelta = NO_GRACE, *, dry_run: bool = False) -> Collected:
    return collect(pipeline.settings, grace, dry_run=dry_run)


def keys(pipeline: Pipeline) -> set[str]:
    return {entry.key for entry in pipeline.objects.entries("")}


def put_payload(pipeline: Pipeline, data: bytes, episode_id: str, revision: int) -> str:
    key = f"episodes/{episode_id}/{revision}-{sha256_hex(data)}.parquet"
    pipeline.objects.put(key, data)
    return key


def moved(data: bytes, offset: int) -> bytes:
    """The same payload, from events that lie elsewhere in the log."""
    table = pq.read_table(pa.BufferReader(data))
    facts = json.loads(table.schema.metadata[METADATA_KEY])
    for part in facts["source_offsets"]:
        part["first"], part["last"] = offset, offset + 1
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(facts)}), sink)
    return bytes(sink.getvalue().to_pybytes())


def put_policy(pipeline: Pipeline, version: int, *, announced: bool) -> str:
    data = f"weights {version} {announced}".encode()
    key = f"policies/p/{version}-{sha256_hex(data)}.safetensors"
    event = PolicyVersion(
        policy="p",
        version=version,
        artifact_uri=pipeline.objects.put(key, data),
        sha256=sha256_hex(data),
        size_bytes=len(data),
        algorithm="hg-dagger",
        learner_step=version,
        episodes_admitted=0,
        offsets=(),
        config="{}",
        code_version="0",
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    if announced:
        schema_id = Registry(pipeline.settings.registry).id_of(POLICY_VERSIONS, codec.latest(event.record))
        producer = EventProducer(pipeline.settings.kafka, "learner")
        producer.send(OutRecord(POLICY_VERSIONS, b"p", codec.frame(schema_id, codec.encode(event))))
        assert producer.flush(30.0) == 0
    return key


def test_only_what_nothing_names_is_removed_and_a_dry_run_says_so_before(pipeline: Pipeline) -> None:
    newest = {event.robot_id: event for event in pipeline.newest().values()}
    [older] = [event for event in pipeline.announcements() if (event.robot_id, event.revision) == ("late", 1)]
    older_key = pipeline.objects.key(older.payload_uri)
    whole = newest["robot-0"]
    data = pipeline.objects.get(pipeline.objects.key(whole.payload_uri))
    orphan = put_payload(pipeline, moved(data, 0), whole.episode_id, 2)
    # As a member that is at work leaves it, before its transaction.
    under_way = put_payload(pipeline, moved(data, 10**9), whole.episode_id, 3)
    unreadable = put_payload(pipeline, b"no payload", whole.episode_id, 4)
    tombstones = {entry.key for entry in pipeline.objects.entries("episodes/") if is_tombstone(entry.key)}
    assert len(tombstones) == 1, "of the robot whose start never came"
    unburied, to_be_buried = put_tombstone(pipeline, whole, 0), put_tombstone(pipeline, whole, 10**9)
    policies = {n: put_policy(pipeline, n, announced=n == 2) for n in (1, 2, 3)}
    header = json.dumps({"__metadata__": {"sop": json.dumps({"episodes": [{"payload_uri": older.payload_uri}]})}})
    pipeline.objects.put("checkpoints/p/1.safetensors", struct.pack("<Q", len(header)) + header.encode())
    pipeline.objects.put("notes/mine.txt", b"not ours")
    before = keys(pipeline)

    assert gc(pipeline, timedelta(hours=1)).objects.total() == 0, "everything is younger than the grace period"
    planned = gc(pipeline, dry_run=True)
    assert planned.objects == {"never announced": 1, "never buried": 1, "policy never announced": 1}
    assert planned.bytes["never announced"] == len(moved(data, 0))
    assert keys(pipeline) == before
    done = gc(pipeline)
    assert (done.objects, done.bytes, done.kept) == (planned.objects, planned.bytes, planned.kept)
    assert before - keys(pipeline) == {orphan, unburied, policies[1]}

    journal = "journals/p/versions/1.json"
    pipeline.objects.put(journal, json.dumps({"payload_uri": older.payload_uri}).encode())
    pipeline.objects.delete("checkpoints/p/1.safetensors")
    assert gc(pipeline).objects == {}, "a version can be trained again"
    pipeline.objects.delete(journal)
    assert gc(pipeline).objects == {"older revision": 1}
    assert before - keys(pipeline) == {orphan, unburied, policies[1], older_key, "checkpoints/p/1.safetensors"}
    assert gc(pipeline).objects == {}
    assert all(pipeline.objects.exists(pipeline.objects.key(event.payload_uri)) for event in newest.values())
    assert all(pipeline.objects.exists(key) for key in tombstones)
    for key in (under_way, unreadable, to_be_buried, policies[2], policies[3], "notes/mine.txt"):
        assert pipeline.objects.exists(key)
        pipeline.objects.delete(key)


def test_a_bucket_of_strangers_is_left_alone(pipeline: Pipeline) -> None:
    newest = list(pipeline.newest().values())
    data = pipeline.objects.get(pipeline.objects.key(newest[0].payload_uri))
    strangers = [
        put_payload(pipeline, data, newest[0].episode_id[:-4] + f"{n:04x}", 1) for n in range(len(newest) + 1)
    ]
    with pytest.raises(DeploymentConflict, match="another system"):
        gc(pipeline)
    for key in strangers:
        assert pipeline.objects.exists(key), TRAINING_EPISODES
        pipeline.objects.delete(key)
