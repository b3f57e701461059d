"""The guard's test: its error rates, by simulation with fixed seeds, and what it counts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.sequential import Outcome, PairedTest, Rates, Trial, Verdict

RATES = Rates(odds_ratio=2.0, least_difference=0.05, false_promotion=0.05, false_rollback=0.05)
RUNS = 1000
# Three standard deviations of a share of 5 % among RUNS; above it the bound is broken, not unlucky.
SLACK = 3 * (0.05 * 0.95 / RUNS) ** 0.5


def odds(rate: float, ratio: float) -> float:
    """The rate whose odds are `ratio` times those of `rate`."""
    return (rate / (1 - rate) * ratio) / (1 + rate / (1 - rate) * ratio)


def simulate(current: float, canary: float, seed: int, share: float = 0.25, limit: int = 50_000) -> PairedTest:
    """Episodes of a fleet, a share of it under the canary, until there is a verdict."""
    chance, test = random.Random(seed), PairedTest(RATES)
    for _ in range(limit):
        tried = chance.random() < share
        task = chance.choice("ab")
        test.add(task, canary=tried, good=chance.random() < (canary if tried else current))
        if test.verdict is not Verdict.UNDECIDED:
            break
    return test


@pytest.mark.parametrize("current", [0.3, 0.7, 0.9])
def test_a_canary_at_the_odds_that_must_not_be_promoted_is_promoted_as_rarely_as_stated(current: float) -> None:
    found = Counter(simulate(current, odds(current, 0.5), seed).verdict for seed in range(RUNS))
    assert found[Verdict.UNDECIDED] == 0
    assert found[Verdict.AS_GOOD] / RUNS <= RATES.false_promotion + SLACK


@pytest.mark.parametrize("current", [0.3, 0.7, 0.9])
def test_a_canary_that_is_as_good_is_found_worse_as_rarely_as_stated(current: float) -> None:
    found = Counter(simulate(current, current, seed).verdict for seed in range(RUNS))
    assert found[Verdict.UNDECIDED] == 0
    assert found[Verdict.WORSE] / RUNS <= RATES.false_rollback + SLACK


def test_a_better_canary_is_found_so_sooner_than_an_equal_one_and_hardly_ever_worse() -> None:
    better = [simulate(0.6, 0.8, seed) for seed in range(200)]
    equal = [simulate(0.6, 0.6, seed) for seed in range(200)]
    assert Counter(test.verdict for test in better)[Verdict.AS_GOOD] >= 199
    needed = [sum(sum(test.episodes.values()) for test in tests) / 200 for tests in (better, equal)]
    assert needed[0] < needed[1] < 1000


def test_a_difference_between_tasks_is_no_difference_between_versions() -> None:
    """The canary's robots happen to play the hard task more often; both versions do equally well in each."""
    wrong = 0
    for seed in range(200):
        chance, test = random.Random(seed), PairedTest(RATES)
        while test.verdict is Verdict.UNDECIDED:
            canary = chance.random() < 0.25
            hard = chance.random() < (0.9 if canary else 0.1)
            test.add("hard" if hard else "easy", canary=canary, good=chance.random() < (0.2 if hard else 0.9))
        wrong += test.verdict is Verdict.WORSE
    assert wrong / 200 <= RATES.false_rollback + 3 * (0.05 * 0.95 / 200) ** 0.5


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=200))
def test_pairs_that_did_alike_say_nothing(episodes: list[tuple[str, bool]]) -> None:
    test = PairedTest(RATES)
    for task, good in episodes:
        test.add(task, canary=True, good=good)
        test.add(task, canary=False, good=good)
    assert test.log_ratio == 0.0
    assert test.verdict is not Verdict.WORSE


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_two_that_never_differ_are_as_good_after_a_hundred_pairs(rate: float) -> None:
    test = simulate(rate, rate, seed=1)
    assert test.verdict is Verdict.AS_GOOD
    assert 90 <= test.episodes[True] <= 110


def test_a_canary_that_fails_where_the_other_never_does_is_promoted_as_rarely_as_stated() -> None:
    found = Counter(simulate(1.0, 0.95, seed).verdict for seed in range(RUNS))
    assert found[Verdict.UNDECIDED] == 0
    assert found[Verdict.AS_GOOD] / RUNS <= RATES.false_promotion + SLACK


def trial(*, success: tuple[float, float], autonomy: tuple[float, float], seed: int) -> Trial:
    """Rates are (current, canary)."""
    chance, made = random.Random(seed), Trial(RATES)
    for _ in range(20_000):
        tried = chance.random() < 0.25
        outcome = Outcome(
            "lift", tried, chance.random() < success[tried], autonomous=chance.random() < autonomy[tried]
        )
        if made.add([outcome]) is not Verdict.UNDECIDED:
            break
    return made


def test_a_canary_that_succeeds_as_often_and_needs_more_help_is_worse() -> None:
    verdicts = [trial(success=(0.8, 0.8), autonomy=(0.8, 0.4), seed=seed).verdict for seed in range(100)]
    assert verdicts.count(Verdict.WORSE) >= 95


def test_one_that_is_better_in_both_is_promoted_and_one_that_is_equal_mostly() -> None:
    better = [trial(success=(0.5, 0.8), autonomy=(0.5, 0.8), seed=seed).verdict for seed in range(100)]
    assert better.count(Verdict.AS_GOOD) >= 99
    equal = [trial(success=(0.6, 0.6), autonomy=(0.6, 0.6), seed=seed).verdict for seed in range(300)]
    assert equal.count(Verdict.WORSE) / 300 <= RATES.false_rollback + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_an_episode_of_which_nobody_knows_the_success_counts_for_interventions_only() -> None:
    made = Trial(RATES)
    made.add([Outcome("lift", canary=True, success=None, autonomous=True)])
    assert made.success.episodes[True] == 0
    assert made.autonomy.episodes[True] == 1
    assert str(made).startswith("success 0 of 0 against 0 of 0: undecided; without intervention 1 of 1")
