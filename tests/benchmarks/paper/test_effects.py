"""The paper's findings, and what our intervals say about them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.paper.effects import Effect, at_equal_data, effects, speed
from benchmarks.paper.frozen import PROGRAM
from benchmarks.paper.program import HG_DAGGER, HUMAN, RECAP, Base, Unit
from benchmarks.paper.result import Result
from tests.benchmarks.paper.test_report import made_up


@pytest.mark.parametrize(
    ("low", "high", "nothing", "verdict"),
    [
        (0.01, 0.2, 0.0, "shown"),
        (0.0, 0.2, 0.0, "not shown"),
        (-0.2, -0.01, 0.0, "the opposite"),
        (0.9, 3.0, 1.0, "not shown"),
        (1.1, math.inf, 1.0, "shown"),
        (math.nan, math.nan, 0.0, "too few seeds"),
    ],
)
def test_the_interval_alone_decides(low: float, high: float, nothing: float, verdict: str) -> None:
    assert Effect("x", "-", 0.0, low, high, nothing, 2).verdict == verdict


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by far more than methods do, and a seed that one arm lacks counts in neither."""
    successes: dict[Unit, list[int]] = {}
    for seed, level in ((11, 100), (12, 150), (13, 180)):
        successes[PROGRAM.online_run(HG_DAGGER, seed)] = [level + 10 + seed % 2]
        successes[PROGRAM.offline_run(HG_DAGGER, seed)] = [level]
    successes[PROGRAM.online_run(HG_DAGGER, 14)] = [0]
    found = {one.claim: one for one in effects(PROGRAM, _done(successes))}
    one = found["SOP + HG-DAgger ends above offline"]
    assert one.seeds == 3
    assert one.value == pytest.approx((11 + 10 + 11) / 3 / 200)
    assert one.verdict == "shown"
    assert "SOP + RECAP ends above offline" not in found


def test_what_there_is_one_of_is_set_against_each_seed() -> None:
    base, recap = PROGRAM.base, replace(PROGRAM.base, algorithm=RECAP)
    successes: dict[Unit, list[int]] = {base: [140], recap: [100], Base(3): [80]}
    for seed in (11, 12):
        successes[PROGRAM.fleet_run(4, HUMAN, seed)] = [170 + seed]
        successes[PROGRAM.online_run(RECAP, seed)] = [90 - seed]
        successes[PROGRAM.sized_run(3, seed)] = [160]
    found = {one.claim: one for one in effects(PROGRAM, _done(successes))}
    assert found["SOP + HG-DAgger improves its base"].value == pytest.approx(41.5 / 200)
    assert found["SOP + RECAP improves its base"].verdict == "the opposite"
    assert found["SOP improves the base of 3 a task"].value == pytest.approx(80 / 200)
    assert found["SOP + HG-DAgger ends more episodes an hour"].value == pytest.approx(1.0)  # all took as long


def test_throughput_is_of_one_robot_without_resets() -> None:
    judged = made_up(PROGRAM, PROGRAM.base, [120]).last  # 200 episodes in 20,000 steps of 0.4 s
    assert speed(PROGRAM, judged) == pytest.approx(200 / (20_000 * 0.4 / 3600))


def test_fleets_are_compared_after_as_many_minutes_of_all_robots_together() -> None:
    one = {11: [(0.0, 0.1), (30.0, 0.2), (60.0, 0.4)], 12: [(0.0, 0.1), (30.0, 0.4), (60.0, 0.6)]}
    two = {11: [(0.0, 0.1), (15.0, 0.3), (30.0, 0.5)]}
    found = at_equal_data({1: one, 2: two}, [30.0, 60.0, 90.0])
    assert {total: {n: mean.value for n, mean in row.items()} for total, row in found.items()} == {
        30.0: {1: pytest.approx(0.3), 2: 0.3},
        60.0: {1: 0.5, 2: 0.5},
    }


def _done(successes: dict[Unit, list[int]]) -> dict[Unit, Result]:
    return {unit: made_up(PROGRAM, unit, counts) for unit, counts in successes.items()}
