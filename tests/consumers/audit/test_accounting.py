"""The audit's arithmetic: clean whatever the materializer went through, and never clean when something is gone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import invariant

from consumers.audit.accounting import Accounting
from consumers.audit.announced import Announcements, episode_of, spoken
from consumers.audit.buried import Buried
from consumers.audit.claims import claims_of
from consumers.audit.doubles import Doubles
from consumers.audit.findings import Finding, Kind, Where
from consumers.dead_letters import Reason
from consumers.ranges import RangeSet
from schemas import codec
from schemas.events import EpisodeMaterialized, Range, Step
from schemas.topics import ROBOT_STEPS, ROBOT_TOPICS
from tests.consumers.member import Cluster, Member
from tests.consumers.robots import Robot, schema_of
from tests.consumers.test_exactly_once_model import ExactlyOnce


def ranges(values: set[int]) -> RangeSet:
    found = RangeSet()
    for value in values:
        found.add(value)
    return found


def folded(
    cluster: Cluster, training: Sequence[EpisodeMaterialized], dead: Sequence[tuple[str, int]]
) -> tuple[Announcements, Buried, list[Finding]]:
    """Both streams of one partition number, as `sop reconcile` reads them, and what is wrong with dead letters."""
    announcements, buried, found = Announcements("s3://sop/"), Buried(), list[Finding]()
    for offset, event in enumerate(training):
        assert list(announcements.add(event, 0, offset)) == []
    for at, (topic, offset) in enumerate(dead):
        assert list(buried.add((topic, 0), offset, (0, at), 0)) == []
        record = cluster.log.records[topic][offset]
        for claim in claims_of((topic, 0), [(offset, record.value)], schema_of).claims:
            reason, sequence = cluster.reasons[at].value, int(claim.sequences[0])
            found += buried.claim(claim.owner, sequence, reason, record.value, at=((topic, 0), offset))
    return announcements, buried, found


def doubles(
    cluster: Cluster, training: Sequence[EpisodeMaterialized], dead: Sequence[tuple[str, int]]
) -> list[Finding]:
    """Events that are kept twice."""
    announcements, buried, found = folded(cluster, training, dead)
    judge = Doubles(announcements, buried, frozenset((topic, 0) for topic in ROBOT_TOPICS))
    for topic in ROBOT_TOPICS:
        records = [(place.offset, place.value) for place in cluster.log.records[topic]]
        judge.add(claims_of((topic, 0), records, schema_of), records)
    return [*found, *judge.findings()]


def audit(
    cluster: Cluster, training: Sequence[EpisodeMaterialized], dead: Sequence[tuple[str, int]]
) -> Accounting:
    """An audit of one partition number, as `sop reconcile` makes it."""
    announcements, buried, _ = folded(cluster, training, dead)
    committed = {place: value.offset for place, value in cluster.committed.items()}
    accounting = Accounting(announcements, buried, committed)
    for topic in ROBOT_TOPICS:
        records = [(place.offset, place.value) for place in cluster.log.records[topic]]
        accounting.add(claims_of((topic, 0), records, schema_of))
    return accounting


class Audited(ExactlyOnce):
    """The model of the materializer, audited after each step."""

    @invariant()
    def an_audit_finds_nothing(self) -> None:
        cluster = self.cluster
        accounting = audit(cluster, cluster.training, cluster.dead)
        assert [finding.name for finding in accounting.findings()] == []
        assert [finding.text for finding in doubles(cluster, cluster.training, cluster.dead)] == []
        assert accounting.checked == sum(len(cluster.log.records[topic]) for topic in ROBOT_TOPICS)


Audited.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAudited = Audited.TestCase


def committed_cluster(episodes: int) -> Cluster:
    """A log whose episodes are announced, all but the last, which is open."""
    cluster, robot = Cluster(), Robot()
    member = Member(cluster)
    for number in range(episodes):
        for event in robot.episode(4, intervene_at=1, ends=number < episodes - 1):
            cluster.log.append(event)
    for topic in ROBOT_TOPICS:
        member.consume(topic, 1_000)
    member.commit()
    return cluster


@given(st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_every_event_of_an_announcement_that_is_taken_away_is_missing(which: int) -> None:
    cluster = committed_cluster(5)
    assert len(cluster.training) == 4
    gone = cluster.training.pop(which)
    accounting = audit(cluster, cluster.training, cluster.dead)
    found = list(accounting.findings())
    assert {finding.episode_id for finding in found} == {gone.episode_id}
    assert {finding.topic for finding in found} == set(ROBOT_TOPICS)
    assert sum(accounting.open.values()) == 7, "the open episode is open, not missing"


def test_a_record_that_cannot_be_read_must_be_a_dead_letter_once_it_was_passed() -> None:
    cluster = committed_cluster(2)
    place = cluster.log.append_raw(ROBOT_STEPS, b"robot-1", b"noise")
    waiting = audit(cluster, cluster.training, cluster.dead)
    assert (list(waiting.findings()), waiting.unread) == ([], 1)
    last = {topic: len(records) for topic, records in cluster.log.records.items()}
    cluster.committed = {
        (topic, 0): value if topic != ROBOT_STEPS else type(value)(last[topic])
        for (topic, _), value in cluster.committed.items()
    }
    [named, _open] = sorted(
        audit(cluster, cluster.training, cluster.dead).findings(), key=lambda f: f.episode_id is not None
    )
    assert (named.kind, named.where, named.offset) == (Kind.MISSING, Where.ROBOT_TOPICS, place.offset)
    dead = [*cluster.dead, (ROBOT_STEPS, place.offset)]
    assert all(f.episode_id for f in audit(cluster, cluster.training, dead).findings())


def test_the_same_dead_letter_twice_is_doubled() -> None:
    buried = Buried()
    assert list(buried.add((ROBOT_STEPS, 0), 7, (0, 0), 0)) == []
    [finding] = buried.add((ROBOT_STEPS, 0), 7, (0, 1), 0)
    assert (finding.kind, finding.name) == (Kind.DOUBLED, "robot-steps[0]@7")


def bury(cluster: Cluster, topic: str, offset: int, reason: Reason) -> None:
    """Put a record of the log on dead-letters."""
    cluster.dead.append((topic, offset))
    cluster.reasons.append(reason)


def test_an_event_that_is_in_its_episode_and_on_dead_letters_is_doubled() -> None:
    for reason in (Reason.NEVER_STARTED, Reason.NOT_FINITE):
        cluster = committed_cluster(3)
        assert doubles(cluster, cluster.training, cluster.dead) == []
        bury(cluster, ROBOT_STEPS, 2, reason)
        [finding] = doubles(cluster, cluster.training, cluster.dead)
        assert (finding.kind, finding.where) == (Kind.DOUBLED, Where.ROBOT_TOPICS)
        assert finding.episode_id == cluster.training[0].episode_id
        assert list(audit(cluster, cluster.training, cluster.dead).findings()) == []


def test_another_record_of_a_listed_sequence_is_no_double() -> None:
    """A robot's name is used twice, and one of its two records cannot be used."""
    cluster = committed_cluster(3)
    good = codec.decode(Step, (cluster.log.records[ROBOT_STEPS][2].value or b"")[codec.FRAME_BYTES :])
    bad = cluster.log.append(good.model_copy(update={"reward": float("nan")}))
    bury(cluster, ROBOT_STEPS, bad.offset, Reason.NOT_FINITE)
    assert doubles(cluster, cluster.training, cluster.dead) == []
    for reason in (Reason.CONFLICT, Reason.FOREIGN_EPISODE, Reason.FOREIGN_KEY):
        bury(cluster, ROBOT_STEPS, 1, reason)
        assert doubles(cluster, cluster.training, cluster.dead) == []
        cluster.dead.pop(), cluster.reasons.pop()


def test_one_event_buried_at_two_offsets_is_doubled() -> None:
    cluster = committed_cluster(2)
    again = cluster.log.append_raw(ROBOT_STEPS, b"robot-1", cluster.log.records[ROBOT_STEPS][-1].value)
    last = len(cluster.log.records[ROBOT_STEPS]) - 2
    for reason, kinds in ((Reason.NEVER_STARTED, [Kind.DOUBLED]), (Reason.CONFLICT, [])):
        cluster.dead, cluster.reasons = [], []
        bury(cluster, ROBOT_STEPS, last, reason)
        bury(cluster, ROBOT_STEPS, again.offset, reason)
        found = doubles(cluster, cluster.training, cluster.dead)
        assert [(finding.kind, finding.offset) for finding in found] == [(kind, again.offset) for kind in kinds]


def test_a_record_beside_an_event_does_not_hide_its_loss_unless_the_episode_says_that_it_was_rejected() -> None:
    for reason in (Reason.CONFLICT, Reason.FOREIGN_EPISODE, Reason.FOREIGN_KEY):
        cluster = committed_cluster(3)
        first = cluster.training[0]
        record = cluster.log.records[ROBOT_STEPS][1]
        step = codec.decode(Step, (record.value or b"")[codec.FRAME_BYTES :])
        lacking = RangeSet.of(first.sequences)
        lacking.discard(step.sequence)
        lost = first.model_copy(update={"sequences": lacking.as_events()})
        stray = cluster.log.append(step.model_copy(update={"reward": 9.0}))
        bury(cluster, ROBOT_STEPS, stray.offset, reason)
        found = list(audit(cluster, [lost, *cluster.training[1:]], cluster.dead).findings())
        assert [(finding.kind, finding.offset) for finding in found] == [(Kind.MISSING, 1)], reason
        told = lost.model_copy(update={"rejected": (Range(first=step.sequence, last=step.sequence),)})
        assert list(audit(cluster, [told, *cluster.training[1:]], cluster.dead).findings()) == []


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (f"episodes/e/12-{'0' * 64}.parquet", ("e", 12)),
        (f"episodes/e/12-{'0' * 63}.parquet", None),
        (f"episodes/e/x-{'0' * 64}.parquet", None),
        (f"episodes/e/12{'0' * 64}.parquet", None),
        (f"policies/e/12-{'0' * 64}.parquet", None),
        (f"episodes/e/12-{'0' * 64}.safetensors", None),
        (f"{uuid.UUID(int=0)}.parquet", None),
    ],
)
def test_only_names_that_are_ours_name_an_episode(key: str, named: tuple[str, int] | None) -> None:
    assert episode_of(key) == named


def test_ranges_are_spoken_shortly() -> None:
    assert spoken(ranges({1, 2, 3, 7})) == "1..3, 7"
    assert spoken(ranges(set(range(0, 20, 2)))) == "0, 2, 4, 6, 8 and 5 more ranges"
