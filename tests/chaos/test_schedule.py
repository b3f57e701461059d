"""A seed is a schedule: pure, and together seeds reach every kind."""

from __future__ import annotations

from collections import Counter
from functools import cache

from tests.chaos.kinds import KINDS, STAGES
from tests.chaos.poison import poisons
from tests.chaos.robot import DEAD, LABELS, LISTED, Event
from tests.chaos.schedule import ROUNDS, STALLS, Schedule, schedule_of
from tests.chaos.timing import CLICKHOUSE_TIMEOUT, EPISODE_TIMEOUT, LEAST, OUTAGES, S3_TIMEOUT
from tests.chaos.traffic import Traffic, traffic_of

SEEDS = range(1, 101)


def flat(traffic: Traffic) -> list[object]:
    return [[(e.topic, e.key, e.datum, e.spoil, e.fate) for e in events] for events in traffic.rounds] + [
        [(e.topic, e.key, e.datum, e.spoil, e.fate) for e in traffic.afterwards]
    ]


@cache
def whole(seed: int) -> Traffic:
    return traffic_of(schedule_of(seed))


def small(seed: int) -> Schedule:
    return schedule_of(seed, events=600, robots=3)


def test_the_same_seed_gives_the_same_schedule_and_the_same_traffic() -> None:
    for seed in (1, 7, 23):
        assert small(seed) == small(seed)
        # repr, because NaN is not equal to itself
        assert repr(flat(traffic_of(small(seed)))) == repr(flat(traffic_of(small(seed))))
    assert small(1) != small(2)


def test_another_salt_sends_other_robots() -> None:
    names = [{e.line for events in traffic_of(small(1), salt).rounds for e in events} for salt in ("a", "b")]
    assert not names[0] & names[1]


def test_a_hundred_seeds_reach_every_kind_and_every_stage() -> None:
    planned: Counter[str] = Counter()
    for seed in SEEDS:
        schedule = schedule_of(seed)
        planned.update({fault.kind for fault in schedule.faults})
        planned.update(f"kill-{plan.die_at}" for plan in schedule.members if plan.die_at)
    expected = KINDS.keys() - {"kill-with-open-episode"}
    assert {kind for kind in expected if planned[kind] < 3} == set()
    assert all(planned[f"kill-{stage}"] >= 8 for stage in STAGES)


def test_a_choice_of_kinds_is_kept_to() -> None:
    for seed in SEEDS:
        schedule = schedule_of(seed, kinds=("s3-kill", "resend"))
        assert {fault.kind for fault in schedule.faults} <= {"s3-kill", "resend"}
        assert schedule.members == ()


def test_faults_begin_and_end_within_the_run() -> None:
    for seed in SEEDS:
        assert all(0 <= fault.at < fault.until <= ROUNDS for fault in schedule_of(seed).faults)


def test_stalls_outlast_requests_and_some_outages_outlast_the_episode_timeout() -> None:
    faults = [fault for seed in SEEDS for fault in schedule_of(seed).faults]
    stalls = {kind: [f.seconds for f in faults if f.kind == kind] for kind in LEAST}
    assert min(stalls["s3-stall"]) > S3_TIMEOUT
    assert min(stalls["clickhouse-stall"]) > CLICKHOUSE_TIMEOUT
    assert {f.detail for f in faults if f.kind == "s3-stall"} == set(STALLS)
    long = [seed for seed in SEEDS if any(f.seconds >= 2 * EPISODE_TIMEOUT for f in schedule_of(seed).faults)]
    assert len(long) >= 15
    assert {f.kind for f in faults if f.seconds >= 2 * EPISODE_TIMEOUT} == set(OUTAGES)


def test_sequences_are_gapless_for_each_robot_and_boot_unless_something_is_missing() -> None:
    traffic = traffic_of(schedule_of(5, events=900, robots=3, kinds=("resend", "clone")))
    by_line: dict[str, set[int]] = {}
    for events in traffic.rounds:
        for event in events:
            assert event.fate == LISTED
            by_line.setdefault(event.line, set()).add(event.sequence)
    assert all(found == set(range(len(found))) for found in by_line.values())
    assert "c-5-0@1" in by_line or not schedule_of(5).has("clone")


def test_every_kind_of_poison_gets_into_some_traffic() -> None:
    sent = [e for seed in range(1, 12) for events in whole(seed).rounds for e in events]
    spoiled = {event.spoil for event in sent}
    assert {poison.name for poison in poisons() if poison.name in _SPOILED} <= spoiled
    reasons = {reason for event in sent if event.fate != LISTED for reason in event.reasons}
    assert reasons >= {"foreign_key", "bad_id", "foreign_episode", "conflict", "not_finite", "wrong_length"}
    assert reasons >= {"bad_features", "never_started", "undecodable", "unknown_schema"}
    assert reasons >= {"bad_time", "episode_full", "unknown_episode"}
    spoiled_episodes = [e for e in sent if e.fate == DEAD and "bad_features" in e.reasons]
    assert {e.datum["body"][0] for e in spoiled_episodes} == {"sop.EpisodeStarted", "sop.FramesRecorded"}
    assert any(e.topic == "robot-interventions" and "bad_id" in e.reasons and e.counted for e in sent)


def test_labels_are_good_unknown_contradicting_and_unreadable_and_some_come_twice() -> None:
    sent: list[Event] = []
    for seed in range(1, 12):
        traffic = whole(seed)
        sent += [e for events in (*traffic.rounds, traffic.afterwards) for e in events if e.topic == LABELS]
    reasons = {reason for event in sent for reason in event.reasons}
    assert reasons == {
        "unknown_episode",
        "foreign_episode",
        "conflict",
        "bad_id",
        "bad_time",
        "undecodable",
        "unknown_schema",
    }
    assert max(Counter(id(event) for event in sent).values()) > 1
    contradicting = {id(event): event.datum["label"]["label_id"] for event in sent if "conflict" in event.reasons}
    assert set(Counter(contradicting.values()).values()) == {2}


_SPOILED = {
    "other-schema",
    "empty",
    "nothing",
    "short",
    "magic",
    "unknown-schema",
    "cut",
    "longer",
    "noise",
    "huge",
}
