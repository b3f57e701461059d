"""Labels after the fact: each counts once, in whatever order it comes, and whoever dies in between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from consumers.dead_letters import Reason
from consumers.payload import read_payload
from infra.errors import ObjectStoreUnavailable
from schemas.events import ClosedBy, EpisodeLabelled, EpisodeMaterialized, Label, RobotEvent, Verdict
from schemas.topics import EPISODE_LABELS
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import Robot, frame, label, uuid7


def deliver(cluster: Cluster, events: Sequence[RobotEvent | EpisodeLabelled]) -> None:
    for event in events:
        cluster.log.append(event, cluster.now_ms())


def work(member: Member, *, silence: bool = False) -> None:
    """One turn of the materializer; after a silence, everything that waits is given up."""
    for topic in member.cluster.log.records:
        member.consume(topic, 1000)
    if silence:
        member.cluster.clock.advance(TIMEOUT + 1)
        member.let_time_pass()
    member.apply_labels()
    member.commit()


def labelled(*labels: EpisodeLabelled) -> tuple[Label, ...]:
    return tuple(event.label for event in labels)


def newest(cluster: Cluster) -> EpisodeMaterialized:
    return cluster.training[-1]


def test_a_label_makes_a_revision_that_says_who_when_and_why_and_changes_nothing_that_the_robot_recorded() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(4, intervene_at=1)
    deliver(cluster, events)
    work(member)
    before = newest(cluster)
    cluster.clock.advance(86_400)
    said = label(events[0].episode_id, verdict=Verdict.FAILED, excluded=True)
    deliver(cluster, [said])
    work(member)
    after = newest(cluster)
    assert (before.revision, before.success, before.recorded_success, before.excluded) == (1, True, True, False)
    assert (after.revision, after.success, after.recorded_success, after.excluded) == (2, False, True, True)
    assert after.labels == labelled(said)
    changed = {name for name, value in after if value != getattr(before, name)}
    assert changed == {
        "revision",
        "success",
        "excluded",
        "labels",
        "payload_uri",
        "payload_sha256",
        "payload_bytes",
        "materialized_at",
        "source_offsets",
    }
    stored = read_payload(cluster.shelf.get(cluster.shelf.key(after.payload_uri)))
    assert stored.facts.labels == after.labels
    assert stored.steps.sequence.tolist() == [1, 3, 5, 6]


def test_labels_come_to_the_same_in_any_order_and_however_often() -> None:
    episode = Robot().episode(2)
    said = [
        label(episode[0].episode_id, minutes=1, verdict=Verdict.FAILED, excluded=True),
        label(episode[0].episode_id, minutes=2, verdict=Verdict.UNKNOWN),
        label(episode[0].episode_id, minutes=3, excluded=False),
    ]
    for order in itertools.permutations([*said, said[0]]):
        cluster = Cluster()
        member = Member(cluster)
        deliver(cluster, episode)
        work(member)
        for one in order:
            deliver(cluster, [one])
            work(member)
        assert newest(cluster).labels == labelled(*said)
        assert (newest(cluster).success, newest(cluster).excluded) == (None, False)
        assert [event.revision for event in cluster.training] == [1, 2, 3, 4]
        assert not cluster.dead


def test_a_label_that_comes_before_the_end_waits_for_it() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(3)
    said = label(events[0].episode_id, excluded=True)
    deliver(cluster, [said, *events[:3]])
    work(member)
    assert member.owned.offsets()[EPISODE_LABELS, 0].offset == 0, "a successor reads the label again"
    deliver(cluster, events[3:])
    work(member)
    work(member)
    assert [(event.revision, event.excluded) for event in cluster.training] == [(1, False), (2, True)]
    assert member.owned.offsets()[EPISODE_LABELS, 0].offset == 1


def test_a_label_of_an_episode_that_nobody_knows_is_a_dead_letter_once_it_could_have_come() -> None:
    cluster, stranger = Cluster(), Robot()
    member = Member(cluster)
    deliver(cluster, [label(uuid7(), excluded=True), *stranger.episode(2)])
    work(member)
    assert not cluster.dead
    work(member, silence=True)
    assert cluster.dead == [(EPISODE_LABELS, 0)]
    assert cluster.reasons == [Reason.UNKNOWN_EPISODE]
    work(Member(cluster), silence=True)
    assert len(cluster.dead) == 1


def test_a_label_of_an_episode_whose_start_never_came_is_a_dead_letter_like_its_steps() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(2)[1:]
    deliver(cluster, [*events, label(events[0].episode_id, excluded=True)])
    for _ in range(3):
        work(member, silence=True)
    assert sorted(cluster.reasons) == sorted([Reason.UNKNOWN_EPISODE, *[Reason.NEVER_STARTED] * len(events)])
    assert not cluster.training


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_label_that_names_another_robot_is_a_dead_letter(*, forgotten: bool) -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(2)
    deliver(cluster, events)
    work(member)
    work(member)
    deliver(cluster, [label(events[0].episode_id, robot_id="robot-2", excluded=True)])
    work(Member(cluster) if forgotten else member)
    assert (cluster.dead, cluster.reasons) == ([(EPISODE_LABELS, 0)], [Reason.FOREIGN_EPISODE])
    assert len(cluster.training) == 1


def test_of_two_labels_with_one_id_the_first_counts_and_the_other_is_a_dead_letter() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(2)
    first = label(events[0].episode_id, verdict=Verdict.FAILED)
    other = first.model_copy(update={"label": first.label.model_copy(update={"verdict": Verdict.SUCCEEDED})})
    deliver(cluster, [*events, first])
    work(member)
    deliver(cluster, [other])
    work(member)
    work(Member(cluster))
    assert newest(cluster).labels == labelled(first)
    assert (cluster.dead, cluster.reasons) == ([(EPISODE_LABELS, 1)], [Reason.CONFLICT])


@pytest.mark.parametrize("_again", range(6))  # which object is listed first is up to its hash
def test_a_member_that_dies_between_storing_and_committing_leaves_nothing_that_counts(_again: int) -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(3)
    deliver(cluster, events)
    work(member)
    work(member)
    deliver(cluster, [label(events[0].episode_id, verdict=Verdict.FAILED)])
    member.consume(EPISODE_LABELS, 1)
    member.apply_labels()
    member.store()  # revision 2 is an object, and nobody has announced it
    assert len(cluster.shelf.objects) == 2
    deliver(cluster, [label(events[0].episode_id, minutes=1, excluded=True)])
    work(Member(cluster))
    assert [event.revision for event in cluster.training] == [1, 2]
    assert (newest(cluster).success, newest(cluster).excluded, len(newest(cluster).labels)) == (False, True, 2)
    work(Member(cluster))  # only now do the committed positions lie behind it all: a successor remembers nothing
    deliver(cluster, [label(events[0].episode_id, minutes=2, excluded=False)])
    work(Member(cluster))
    assert (newest(cluster).revision, len(newest(cluster).labels)) == (3, 3), "the orphan has one label, and lost"


def test_a_label_that_is_read_before_its_episode_is_read_again_waits_for_it() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(3)
    deliver(cluster, [*events, label(events[0].episode_id, excluded=True)])
    for topic in cluster.log.records:
        member.consume(topic, 1000)
    member.store()  # revision 1 is an object, and nobody has announced it
    member = Member(cluster)
    member.consume(EPISODE_LABELS, 1)
    member.apply_labels()
    member.commit()
    work(member)
    work(member)
    assert not cluster.dead
    assert [(event.revision, event.excluded) for event in cluster.training] == [(1, False), (2, True)]


def test_a_label_waits_for_an_episode_that_goes_on_for_longer_than_a_silent_one_is_waited_for() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(5)
    deliver(cluster, [events[0], label(events[0].episode_id, excluded=True)])
    for event in events[1:]:
        deliver(cluster, [event])
        work(member)
        cluster.clock.advance(TIMEOUT * 0.6)
        member.let_time_pass()
    work(member)
    work(member)
    assert not cluster.dead
    assert [event.excluded for event in cluster.training] == [False, True]


def test_a_label_that_was_found_its_episode_is_not_lost_when_the_store_fails_at_the_next() -> None:
    cluster = Cluster()
    first, second = Robot("robot-1").episode(2), Robot("robot-2").episode(2)
    deliver(cluster, [*first, *second])
    work(Member(cluster))
    work(Member(cluster))  # from here on a successor remembers neither
    said = [label(first[0].episode_id, robot_id="robot-1", excluded=True)]
    said += [label(second[0].episode_id, robot_id="robot-2", excluded=True)]
    deliver(cluster, said)
    member = Member(cluster)
    member.consume(EPISODE_LABELS, 10)
    cluster.shelf.fails_in = 3  # list and get of the first
    with pytest.raises(ObjectStoreUnavailable):
        member.apply_labels()
    work(member)
    assert sorted(event.labels[0].label_id for event in cluster.training[2:]) == sorted(
        one.label.label_id for one in said
    )


def test_late_events_of_a_labelled_episode_keep_its_labels() -> None:
    cluster = Cluster()
    member, events = Member(cluster), Robot().episode(5)
    deliver(cluster, events[:3])
    work(member, silence=True)
    said = label(events[0].episode_id, verdict=Verdict.FAILED)
    deliver(cluster, [said])
    work(member)
    assert newest(cluster).closed_by is ClosedBy.TIMEOUT
    deliver(cluster, events[3:])
    work(Member(cluster), silence=True)
    after = newest(cluster)
    assert (after.revision, after.step_count, after.closed_by) == (3, 5, ClosedBy.COMPLETE)
    assert (after.labels, after.success, after.recorded_success) == (labelled(said), False, True)


def test_an_episode_that_its_successor_closed_stays_so_when_it_is_labelled() -> None:
    cluster, robot = Cluster(), Robot()
    member = Member(cluster)
    cut_off, after = robot.episode(2, ends=False), robot.episode(2)
    deliver(cluster, [*cut_off, *after])
    work(member)
    deliver(cluster, [label(cut_off[0].episode_id, excluded=True)])
    work(member)
    assert (newest(cluster).episode_id, newest(cluster).closed_by) == (cut_off[0].episode_id, ClosedBy.SUCCESSOR)


def test_a_record_that_is_no_label_is_a_dead_letter() -> None:
    cluster = Cluster()
    member, episode_id = Member(cluster), uuid7()
    good = label(episode_id, excluded=True)
    bad_label = good.model_copy(update={"label": good.label.model_copy(update={"label_id": "first"})})
    for key, value in (
        (b"robot-1", b"no frame"),
        (b"robot-1", None),
        (b"robot-2", frame(good)),
        (b"robot-1", frame(good.model_copy(update={"episode_id": "mine"}))),
        (b"robot-1", frame(bad_label)),
    ):
        cluster.log.append_raw(EPISODE_LABELS, key, value)
    work(member)
    assert [offset for _, offset in cluster.dead] == list(range(5))
    assert cluster.reasons == [
        Reason.UNDECODABLE,
        Reason.UNDECODABLE,
        Reason.FOREIGN_KEY,
        Reason.BAD_ID,
        Reason.BAD_ID,
    ]
