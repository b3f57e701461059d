from __future__ import annotations

import math

from producers.emulator.plan import Counts, FleetPlan, FleetReport

PLAN = FleetPlan(robots=10, hz=30.0, processes=3)


def test_every_robot_is_in_one_process() -> None:
    names = [name for process in range(3) for name in PLAN.names(process)]
    assert sorted(names) == [f"emulated-{n:05d}" for n in range(10)]


def test_a_fleet_that_kept_its_pace_has_no_failures() -> None:
    report = FleetReport(PLAN, Counts(steps=2_990, skipped=10, cpu_seconds=0.1, seconds=10.0))
    assert report.failures() == []
    assert report.achieved == 299
    assert math.isclose(report.cpu_per_step, 0.1 / 2_990 * 1e6)


def test_a_fleet_that_did_not_says_what_was_reached_and_what_was_asked() -> None:
    (failure,) = FleetReport(PLAN, Counts(steps=2_000, skipped=1_000, seconds=10.0)).failures()
    assert "200 of 300 steps/s" in failure


def test_what_kafka_did_not_take_is_a_failure() -> None:
    (failure,) = FleetReport(PLAN, Counts(steps=3_000, seconds=10.0, unacknowledged=5, refused=2)).failures()
    assert "5 events were not acknowledged by Kafka, 2 were refused" in failure


def test_of_two_processes_what_was_done_is_added_and_the_latest_counts() -> None:
    total = Counts(steps=1, seconds=2.0, latest=0.1).plus(Counts(steps=2, seconds=1.0, latest=0.3))
    assert total == Counts(steps=3, seconds=2.0, latest=0.3)
