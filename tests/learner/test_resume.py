from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from infra.object_store import sha256_hex
from infra.settings import LearnerSettings
from learner import resume as resume_module
from learner.checkpoint import Checkpoint
from learner.errors import CheckpointMissing, EpisodesLost, InvalidArtifact, OtherAlgorithm
from learner.journal import Decision, Entry, Journal
from learner.policies.artifact import unpack_json
from learner.rerun import apply
from learner.resume import Resumed, Way, from_the_beginning, resume
from learner.set_aside import SetAside
from schemas.events import PolicyVersion
from tests.learner.lives import BASE, DEMONSTRATIONS, FLEET, Life, fetcher, restored, sealed
from tests.learner.synthetic import START

TRAINED = PolicyVersion(
    policy="arm",
    version=3,
    artifact_uri="s3://sop/policies/arm/3",
    sha256="0" * 64,
    size_bytes=1,
    algorithm="hg-dagger",
    learner_step=10,
    episodes_admitted=0,
    offsets=(),
    config="{}",
    code_version="0",
    published_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize("algorithm", ["recap", "bc"])
def test_a_line_is_not_trained_on_with_another_algorithm(algorithm: Any) -> None:
    settings = LearnerSettings(policy="arm", algorithm=algorithm)
    nothing: Any = None  # it is refused before any of it is looked at
    with pytest.raises(OtherAlgorithm, match=f"with hg-dagger, not with {algorithm}.*sop backfill --policy NEW"):
        resume(Way(settings, {3: TRAINED}, nothing, nothing), Checkpoint(TRAINED, {}, {}, SetAside()))
    with pytest.raises(OtherAlgorithm, match=f"with hg-dagger, not with {algorithm}"):
        from_the_beginning(Way(settings, {3: TRAINED}, nothing, nothing), CheckpointMissing("none"))


def lived() -> tuple[Life, dict[int, PolicyVersion], Journal]:
    """A line of three versions: the second has four episodes, the third one more."""
    life = Life(BASE)
    life.live([[(3, [0, 1, 2, 3])], [(2, [4]), (3, [])]])
    return life, *sealed(life)


@pytest.mark.parametrize("newest", [2, 3], ids=["at the newest version", "before it"])
def test_where_many_episodes_are_gone_at_once_nobody_goes_on_without_them_unasked(
    newest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_module, "_FEW_LOST", 1)
    life, announced, journal = lived()
    past = {number: announced[number] for number in range(1, newest + 1)}
    checkpoint = Checkpoint(past[2], *unpack_json(life.snapshots[1]), SetAside())
    payloads = fetcher([*DEMONSTRATIONS, *FLEET[2:]])
    with pytest.raises(EpisodesLost, match=f"2 of the 6 episodes .*{FLEET[0].record.payload_uri}.*--without-lost"):
        resume(Way(BASE, past, journal, payloads), checkpoint)
    resumed = resume(Way(BASE, past, journal, payloads, without_lost=True), checkpoint)
    payloads.close()
    assert (resumed.at.version, resumed.lost) == (2, [made.record for made in FLEET[:2]])


def test_what_was_once_forgotten_as_lost_is_not_asked_about_again_and_what_came_of_it_is_gone_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume_module, "_FEW_LOST", 1)
    life, announced, journal = lived()
    past = {number: announced[number] for number in (1, 2)}
    checkpoint = Checkpoint(past[2], *unpack_json(life.snapshots[1]), SetAside())
    payloads = fetcher([*DEMONSTRATIONS, *FLEET[2:]])
    resumed = resume(Way(BASE, past, journal, payloads, without_lost=True), checkpoint)
    entries = tuple(resumed.tail(journal))
    journal.take_over(2, "00000001-a", entries)
    again = resume(Way(BASE, past, journal, payloads), checkpoint)
    assert again.lost == resumed.lost
    assert sha256_hex(again.core.artifact()) == sha256_hex(resumed.core.artifact())

    newer = FLEET[4]
    assert (newer.record.episode_id, newer.record.revision) == (FLEET[0].record.episode_id, 2)
    came = Decision(record=newer.record, partition=0, offset=99, seen_at=START)
    entries += (Entry(learner_step=resumed.core.learner_step, admitted=(came,)),)
    for entry, episodes in zip(entries, [[]] * (len(entries) - 1) + [[newer.episode]], strict=True):
        apply(resumed.core, entry, episodes)
    for _ in range(4):
        resumed.core.update(online=True)
    digest = sha256_hex(resumed.core.artifact())
    made = {"version": 4, "parent": 2, "sha256": digest, "learner_step": resumed.core.learner_step}
    journal.seal(life.segments[1].model_copy(update={**made, "entries": entries}))
    past[4] = past[2].model_copy(update={"version": 4, "parent_version": 2, "sha256": digest})
    along = resume(Way(BASE, past, journal, payloads), checkpoint)
    payloads.close()
    assert (along.at.version, sha256_hex(along.core.artifact())) == (4, digest)
    assert along.tail(journal) == [], "what came since in a newer revision is not forgotten again"
    assert along.core.episodes.get(newer.record.episode_id) == newer.record
    assert [record.episode_id for record in along.set_aside] == [FLEET[1].record.episode_id]


def test_a_way_that_other_software_went_is_not_gone() -> None:
    life, *_ = lived()
    unknown = json.dumps({**json.loads(life.segments[2].config), "invented_later": 1})
    life.segments[2] = life.segments[2].model_copy(update={"config": unknown})
    announced, journal = sealed(life)
    checkpoint = Checkpoint(announced[2], *unpack_json(life.snapshots[1]), SetAside())
    payloads = fetcher()
    resumed = resume(Way(BASE, announced, journal, payloads), checkpoint)
    payloads.close()
    assert resumed.at.version == 2
    with pytest.raises(InvalidArtifact, match=r"other software \(invented_later: Extra inputs"):
        _ = Checkpoint(announced[3], {}, {}, SetAside()).settings


def test_one_episode_that_is_gone_stops_nobody_and_is_forgotten_first_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume_module, "_FEW_LOST", 1)
    life, announced, journal = lived()
    checkpoint = Checkpoint(announced[2], *unpack_json(life.snapshots[1]), SetAside())
    payloads = fetcher([*DEMONSTRATIONS, *FLEET[1:]])
    resumed = resume(Way(BASE, {2: announced[2]}, journal, payloads), checkpoint)
    payloads.close()
    lost = FLEET[0].record.episode_id
    decided = life.segments[2].entries
    journal.take_over(2, "00000001-a", decided)
    entries = resumed.tail(journal)
    assert entries == [Entry(learner_step=resumed.core.learner_step, forgotten=(lost,)), *decided]
    assert lost in resumed.set_aside


def test_what_was_decided_about_one_version_is_not_done_to_another() -> None:
    """Earlier software filed decisions about a version to which it had gone back under the newest one's number."""
    life, announced, journal = lived()
    for number, entries in ((1, life.segments[1].entries), (2, life.segments[2].entries)):
        journal.take_over(number, "00000001-a", entries)
    cores = {number: restored(BASE, life.snapshots[number - 1]) for number in (1, 2, 3)}
    for number in (1, 2):
        own = Resumed(cores[number], announced[number])
        assert tuple(own.tail(journal)) == life.segments[number].entries
    for filed, core, entries in (
        (2, 2, life.segments[1].entries),
        (3, 3, life.segments[1].entries),
        (2, 2, (life.segments[1].entries[0].model_copy(update={"learner_step": 10**6}),)),
        (1, 1, life.segments[1].entries[::-1] + life.segments[2].entries[::-1]),
    ):
        journal.take_over(filed, "00000002-b", entries)
        assert Resumed(cores[core], announced[filed]).tail(journal) == []


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({"chunk": 9, "hidden": (4, 4)}, ["hidden", "chunk"]),
        ({"learning_rate": 1e-5, "batch_size": 3, "adaptive_alpha": 2.0}, []),
    ],
)
def test_what_was_fixed_when_the_line_began_is_said_not_to_be_heeded(
    changes: dict[str, object], others: list[str]
) -> None:
    life, announced, journal = lived()
    checkpoint = Checkpoint(announced[2], *unpack_json(life.snapshots[1]), SetAside())
    payloads = fetcher([*DEMONSTRATIONS, *FLEET])
    with capture_logs() as logs:
        resumed = resume(Way(BASE.model_copy(update=changes), {2: announced[2]}, journal, payloads), checkpoint)
    payloads.close()
    said = [entry["settings"] for entry in logs if entry["event"] == "settings_not_heeded"]
    assert said == ([others] if others else [])
    assert (resumed.core.spec.chunk, resumed.core.spec.hidden) == (BASE.chunk, BASE.hidden)
