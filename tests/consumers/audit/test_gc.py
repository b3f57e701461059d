"""`sop gc` on real servers: what nothing names goes once it is old enough, what anything names stays."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.audit.announced import Announcements
from consumers.audit.gc import Collected, collect, reason_to_remove
from consumers.audit.named import in_doubt, read_names
from consumers.audit.progress import Stages
from consumers.audit.reconcile import Options, reconcile
from consumers.payload import METADATA_KEY
from consumers.tombstone import is_tombstone
from infra.belonging import KEY, owner_of
from infra.errors import DeploymentConflict
from infra.kafka import EventProducer, OutRecord
from infra.kafka.identity import cluster_id
from infra.object_store import Entry, sha256_hex
from infra.registry import Registry
from infra.settings import LearnerSettings
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.episodes import EpisodeRecord
from learner.set_aside import SetAside
from schemas import codec
from schemas.events import EpisodeMaterialized, PolicyVersion
from schemas.topics import POLICY_VERSIONS, TRAINING_EPISODES
from tests.consumers.audit.graves import put_tombstone
from tests.consumers.audit.test_accounting import committed_cluster
from tests.consumers.integration.pipeline import Pipeline
from tests.learner.test_checkpoint import version
from tests.learner.test_replay import SPEC

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
    policies = {n: put_policy(pipeline, n, announced=n == 2) for n in (2, 1, 3)}
    core = TrainingCore(LearnerSettings(hidden=(4,)), SPEC)
    core.episodes.put(EpisodeRecord.of(older))
    checkpoint = Checkpoint(version(1), *core.snapshot(), SetAside()).pack()
    assert older_key.encode() not in checkpoint, "it is named by its parts"
    pipeline.objects.put("checkpoints/p/1.safetensors", checkpoint)
    done, unfinished = "halfway/p.json", "halfway/q.json"
    for key in ("notes/mine.txt", done, unfinished):
        pipeline.objects.put(key, b"not ours")
    before = keys(pipeline)

    assert gc(pipeline, timedelta(hours=1)).objects.total() == 0, "everything is younger than the grace period"
    planned = gc(pipeline, dry_run=True)
    assert planned.objects == {
        "never announced": 1,
        "never buried": 1,
        "policy never announced": 1,
        "backfill that is done": 1,
    }
    assert planned.bytes["never announced"] == len(moved(data, 0))
    assert keys(pipeline) == before
    removed = gc(pipeline)
    assert (removed.objects, removed.bytes, removed.kept) == (planned.objects, planned.bytes, planned.kept)
    assert before - keys(pipeline) == {orphan, unburied, policies[1], done}

    journal = "journals/p/versions/1.json"
    pipeline.objects.put(journal, json.dumps({"payload_uri": older.payload_uri}).encode())
    pipeline.objects.delete("checkpoints/p/1.safetensors")
    assert gc(pipeline).objects == {}, "a version can be trained again"
    pipeline.objects.delete(journal)
    assert gc(pipeline).objects == {"older revision": 1}
    gone = {orphan, unburied, policies[1], done, older_key, "checkpoints/p/1.safetensors"}
    assert before - keys(pipeline) == gone
    assert gc(pipeline).objects == {}
    assert all(pipeline.objects.exists(pipeline.objects.key(event.payload_uri)) for event in newest.values())
    assert all(pipeline.objects.exists(key) for key in tombstones)
    for key in (under_way, unreadable, to_be_buried, policies[2], policies[3], unfinished, "notes/mine.txt"):
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


def test_a_bucket_that_another_kafka_filled_is_left_alone_until_it_is_adopted(pipeline: Pipeline) -> None:
    objects, ours = pipeline.objects, cluster_id(pipeline.settings.kafka)
    assert owner_of(objects) == ours, "`sop deploy` wrote it down"
    objects.put(KEY, json.dumps({"cluster_id": "another"}).encode())
    orphan = orphan_of(pipeline)
    with pytest.raises(DeploymentConflict, match=r"filled from Kafka cluster another.*gc --adopt"):
        gc(pipeline)
    with pytest.raises(DeploymentConflict, match="filled from Kafka cluster another"):
        reconcile(pipeline.settings, Options(repair=True))
    report = reconcile(pipeline.settings, Options())
    assert any("filled from Kafka cluster another" in note for note in report.notes)
    collect(pipeline.settings, NO_GRACE, dry_run=True, adopt=True)
    assert owner_of(objects) == "another", "a dry run changes nothing"
    objects.put(KEY, b"{")
    with pytest.raises(DeploymentConflict, match="does not say which Kafka"):
        gc(pipeline)
    objects.put(KEY, json.dumps({"cluster_id": "another"}).encode())
    gone = collect(pipeline.settings, NO_GRACE, dry_run=False, adopt=True).objects
    assert gone["never announced"] == 1, "an episode may have come in two revisions, of which one is old"
    assert (owner_of(objects), objects.exists(orphan)) == (ours, False)
    objects.delete(KEY)
    assert gc(pipeline, dry_run=True).objects == {}
    assert owner_of(objects) is None
    assert gc(pipeline).objects == {}
    assert owner_of(objects) == ours, "whoever comes first writes it down"


def orphan_of(pipeline: Pipeline) -> str:
    """A payload of a whole episode that nobody announced, from events that were passed for good."""
    event = next(event for event in pipeline.newest().values() if event.robot_id == "robot-0")
    data = pipeline.objects.get(pipeline.objects.key(event.payload_uri))
    return put_payload(pipeline, moved(data, 0), event.episode_id, 2)


def test_what_is_older_than_the_stream_is_no_garbage_although_nobody_announced_it(pipeline: Pipeline) -> None:
    objects = pipeline.objects
    named = read_names(pipeline.settings, objects, Stages())
    appended = [message.timestamp()[1] for message in pipeline.read(TRAINING_EPISODES)]
    assert named.began[TRAINING_EPISODES] == datetime.fromtimestamp(min(appended) / 1000, UTC)
    event = next(event for event in pipeline.newest().values() if event.robot_id == "robot-0")
    stranger = event.episode_id[:-4] + "0000"
    data = objects.get(objects.key(event.payload_uri))
    orphans = [
        orphan_of(pipeline),
        put_payload(pipeline, data, stranger, 1),
        put_tombstone(pipeline, event, 0),
        put_policy(pipeline, 1, announced=False),
    ]
    put_policy(pipeline, 2, announced=True)
    named = read_names(pipeline.settings, objects, Stages())
    later = datetime.now(UTC) + timedelta(hours=1)
    entries = [entry for key in orphans for entry in objects.entries(key.rpartition("/")[0]) if entry.key == key]
    assert [entry.key for entry in entries] == orphans

    def reasons(began: dict[str, datetime]) -> list[str | None]:
        seen = replace(named, began=began)
        return [reason_to_remove(entry, seen, later, objects) for entry in entries]

    long_ago = dict.fromkeys((TRAINING_EPISODES, POLICY_VERSIONS), datetime(2020, 1, 1, tzinfo=UTC))
    assert reasons(long_ago) == ["never announced", "never announced", "never buried", "policy never announced"]
    assert reasons(dict.fromkeys(long_ago, later)) == [None] * 4
    assert reasons({}) == [None] * 4, "a topic without a record tells nothing"
    for key in orphans:
        objects.delete(key)


def test_an_older_revision_stays_as_long_as_the_newest_is_not_there(pipeline: Pipeline) -> None:
    [newest] = [event for event in pipeline.newest().values() if event.robot_id == "robot-1"]
    named = read_names(pipeline.settings, pipeline.objects, Stages())
    key = pipeline.objects.key(newest.payload_uri)
    data = pipeline.objects.get(key)
    further = newest.model_copy(
        update={
            "revision": 2,
            "payload_uri": newest.payload_uri.replace("/1-", "/2-"),
        }
    )
    assert list(named.announcements.add(further, 0, 10**6)) == []
    later = datetime.now(UTC) + timedelta(hours=1)
    older = Entry(key, len(data), datetime.now(UTC))

    def reason() -> str | None:
        return reason_to_remove(older, named, later, pipeline.objects)

    assert reason() is None, "the newest is gone"
    second = pipeline.objects.key(further.payload_uri)
    pipeline.objects.put(second, data[:-1])
    assert reason() is None, "it was cut off"
    pipeline.objects.put(second, data)
    assert reason() == "older revision"
    pipeline.objects.delete(second)


def test_of_a_revision_that_lacks_what_its_predecessor_has_both_payloads_are_kept() -> None:
    first = committed_cluster(2).training[0]

    def revision(number: int, **changes: object) -> EpisodeMaterialized:
        uri = f"s3://sop/episodes/{first.episode_id}/{number}-{'f' * 64}.parquet"
        return first.model_copy(update={"revision": number, "payload_uri": uri, **changes})

    announcements = Announcements("s3://sop/")
    kept = [
        sorted(in_doubt(announcements, event, 0, offset))
        for offset, event in enumerate([revision(1), revision(2, sequences=first.sequences[:0]), revision(3)])
    ]
    keys = [revision(number).payload_uri.removeprefix("s3://sop/") for number in (1, 2)]
    assert kept == [[], keys, []]
