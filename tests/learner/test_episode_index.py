from __future__ import annotations

import uuid

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.object_store import sha256_hex
from infra.payload_names import COLUMN, payloads_in
from learner.checkpoint import Checkpoint
from learner.episode_index import GONE, LEFT, EpisodeIndex
from learner.episodes import EpisodeRecord
from learner.policies.artifact import pack_json, unpack_json
from learner.revisions import RevisionTable
from learner.set_aside import SetAside
from schemas.events import EpisodeEnd, EpisodeSource
from tests.learner.test_checkpoint import version

IDS = st.one_of(
    st.uuids().map(str),
    st.sampled_from(["odd", "", "0" * 32, "0000000A-0000-7000-8000-000000000001", str(uuid.UUID(int=5))]),
)
URIS = st.sampled_from(["s3://sop/episodes/{i}/{r}-{s}.parquet", "s3://other/{i}.parquet", "nowhere", "a/{r}/{s}"])


@st.composite
def records(draw: st.DrawFn) -> EpisodeRecord:
    episode_id, revision = draw(IDS), draw(st.integers(0, 12))
    digest = sha256_hex(draw(st.binary(max_size=2)))
    return EpisodeRecord(
        episode_id=episode_id,
        revision=revision,
        robot_id=draw(st.sampled_from(["robot-1", "robot-2", ""])),
        boot_epoch=draw(st.integers(0, 2**53)),
        task=draw(st.sampled_from(["push", "lift"])),
        source=draw(st.sampled_from(EpisodeSource)),
        success=draw(st.sampled_from([None, True, False])),
        end=draw(st.sampled_from([None, *EpisodeEnd])),
        step_count=draw(st.integers(0, 10**6)),
        payload_uri=draw(URIS).format(i=episode_id, r=revision, s=digest),
        payload_sha256=digest,
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(records(), max_size=30),
    st.sets(st.integers(0, 29)),
    st.sets(st.integers(0, 29)),
    st.sets(st.integers(0, 29)),
)
def test_the_index_remembers_as_a_dict_does_and_survives_a_checkpoint(
    made: list[EpisodeRecord], gone: set[int], left: set[int], unselected: set[int]
) -> None:
    index, model, out, unread = EpisodeIndex(), dict[str, EpisodeRecord](), set[str](), set[str]()
    for number, record in enumerate(made):
        model.pop(record.episode_id, None)
        model[record.episode_id] = record
        row = index.put(record)
        out.discard(record.episode_id)
        unread.discard(record.episode_id)
        index.note_unselected(row, unselected=number in unselected)
        if number in unselected:
            unread.add(record.episode_id)
        if number in gone:
            del model[record.episode_id]
            index.mark(row, GONE)
        elif number in left:
            index.mark(row, LEFT)
            out.add(record.episode_id)
    document, columns = unpack_json(pack_json(*index.dump()))
    loaded = EpisodeIndex.load(document, columns)
    for found in (index, loaded):
        assert list(found.values()) == list(model.values())
        assert len(found) == len(model)
        assert list(found.held()) == [r for r in model.values() if r.episode_id not in out]
        assert list(found.to_refill()) == [r for r in model.values() if r.episode_id not in out | unread]
        noted = [found.unselected(row) for row in range(found.rows) if found.state(row) != GONE]
        assert noted == [one in unread - out for one in model], "of what left nothing is noted"
        assert found.step_count == sum(record.step_count for record in model.values())
        for record in made:
            assert found.get(record.episode_id) == model.get(record.episode_id)
    assert pack_json(*loaded.dump()) == pack_json(*index.dump()), "the same episodes, the same bytes"


def test_an_episode_costs_about_a_hundred_bytes() -> None:
    index, random = EpisodeIndex(), np.random.default_rng(0)
    for number in range(20_000):
        episode_id, digest = str(uuid.UUID(bytes=random.bytes(16))), random.bytes(32).hex()
        index.put(
            EpisodeRecord(
                episode_id=episode_id,
                revision=1,
                robot_id=f"robot-{number % 300}",
                boot_epoch=1_700_000_000_000,
                task="push",
                source=EpisodeSource.ONLINE,
                success=True,
                step_count=300,
                payload_uri=f"s3://sop/episodes/{episode_id}/1-{digest}.parquet",
                payload_sha256=digest,
            )
        )
    assert index.nbytes / len(index) < 130


@given(st.lists(st.tuples(IDS, st.integers(0, 2**40))))
def test_numbers_are_found_under_the_id_that_they_were_put_under(entries: list[tuple[str, int]]) -> None:
    table, model = RevisionTable(), dict[str, int]()
    for episode_id, number in entries:
        table.put(episode_id, number)
        model[episode_id] = number
    assert len(table) == len(model)
    assert {episode_id: table.get(episode_id) for episode_id in model} == model
    assert table.get("nobody") == -1


def test_a_table_that_grows_forgets_nothing() -> None:
    table = RevisionTable()
    for number in range(5000):
        table.put(str(uuid.UUID(int=number << 70 | 7)), number)
    assert [table.get(str(uuid.UUID(int=number << 70 | 7))) for number in range(5000)] == list(range(5000))


@settings(max_examples=30)
@given(st.lists(records(), max_size=6))
def test_a_checkpoint_names_the_payloads_of_all_episodes_that_are_not_gone(made: list[EpisodeRecord]) -> None:
    index = EpisodeIndex()
    for record in made:
        index.put(record)
    names, columns = index.dump()
    tensors = {COLUMN + name: rows for name, rows in columns.items()}
    data = Checkpoint(version(1), {"index": names}, tensors, SetAside()).pack()
    assert list(payloads_in(data)) == [record.payload_uri for record in index.values()]
    assert list(payloads_in(data[:-1])) == list(payloads_in(pack_json({}, tensors))) == []
