"""Is a canary worse than what the others run? A sequential test of two success rates, to be looked at at any time.

Wald's test of double dichotomies (A. Wald, Sequential Analysis, 1947, ch. 6): episodes of the two are paired as
they come. Pairs in which both did alike say nothing, and in the others the canary is the better one with
probability u / (1 + u), where u is the ratio of its odds of success to the other's, whatever the rates are. On
these pairs a sequential probability ratio test decides between u = 1 / `odds_ratio` (worse) and u = 1 (as good).

Where both nearly always succeed, or nearly always fail, such pairs hardly come. So a second test of the same kind
asks how often they come: rates never differ by more than that, and a canary passes once they are shown to come
less often than `least_difference`.

Thresholds are on the likelihood ratio itself (Wald's inequality), so that error rates are bounds and no
approximations: a canary that is worse by `odds_ratio` and by `least_difference` is found as good with at most
`false_promotion` (a half for each test), and one as good or better is found worse with at most `false_rollback`.
In between either may be said. All this assumes that episodes are independent, given the version and the task.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Verdict(StrEnum):
    """What is known of a canary."""

    UNDECIDED = "undecided"
    AS_GOOD = "as good"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Rates:
    """Error rates and the difference that matters: `odds_ratio` above 1, `least_difference` of two rates."""

    odds_ratio: float
    least_difference: float
    false_promotion: float
    false_rollback: float


@dataclass
class PairedTest:
    """One yes-or-no measure of episodes, which are paired within their task, each with the oldest that waits."""

    rates: Rates
    verdict: Verdict = Verdict.UNDECIDED
    successes: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    episodes: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    log_ratio: float = 0.0
    log_alike: float = 0.0
    _waiting: dict[tuple[str, bool], deque[bool]] = field(default_factory=lambda: defaultdict(deque))

    def add(self, task: str, *, canary: bool, good: bool) -> None:
        """One more episode; once there is a verdict, it stays."""
        if self.verdict is not Verdict.UNDECIDED:
            return
        self.episodes[canary] += 1
        self.successes[canary] += good
        others = self._waiting[task, not canary]
        if not others:
            self._waiting[task, canary].append(good)
            return
        other = others.popleft()
        rare = self.rates.least_difference
        at_hand = rare / 4  # what "hardly ever" is tested as; the error rate holds whatever stands here
        if good == other:
            self.log_alike += math.log((1.0 - at_hand) / (1.0 - rare))
            if self.log_alike >= self._promoting:
                self.verdict = Verdict.AS_GOOD
            return
        self.log_alike += math.log(at_hand / rare)
        worse = 1.0 / (1.0 + self.rates.odds_ratio)  # u / (1 + u) at u = 1 / odds_ratio; at u = 1 it is a half
        canary_is_better = good is canary
        self.log_ratio += math.log(0.5 / worse) if canary_is_better else math.log(0.5 / (1.0 - worse))
        if self.log_ratio >= self._promoting:
            self.verdict = Verdict.AS_GOOD
        elif self.log_ratio <= math.log(self.rates.false_rollback):
            self.verdict = Verdict.WORSE

    @property
    def _promoting(self) -> float:
        return -math.log(self.rates.false_promotion / 2)

    def __str__(self) -> str:
        told = [f"{self.successes[canary]} of {self.episodes[canary]}" for canary in (True, False)]
        return f"{told[0]} against {told[1]}: {self.verdict}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode went; `success` None where nobody knows. `canary`: the version that is tried drove it."""

    task: str
    canary: bool
    success: bool | None
    autonomous: bool


@dataclass
class Trial:
    """A canary's trial: success, and episodes without any intervention, each tested on its own.

    It is worse if either test says so: each may err with half of `false_rollback`. It is as good if both say so,
    which a canary that is worse in one of them passes with at most `false_promotion`.
    """

    rates: Rates
    success: PairedTest = field(init=False)
    autonomy: PairedTest = field(init=False)

    def __post_init__(self) -> None:
        each = replace(self.rates, false_rollback=self.rates.false_rollback / 2)
        self.success, self.autonomy = PairedTest(each), PairedTest(each)

    def add(self, outcomes: Iterable[Outcome]) -> Verdict:
        """Take in more episodes, in the order in which they are to be paired; what is known now."""
        for outcome in outcomes:
            if self.verdict is not Verdict.UNDECIDED:
                break
            if outcome.success is not None:
                self.success.add(outcome.task, canary=outcome.canary, good=outcome.success)
            self.autonomy.add(outcome.task, canary=outcome.canary, good=outcome.autonomous)
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """What is known now."""
        both = {self.success.verdict, self.autonomy.verdict}
        if Verdict.WORSE in both:
            return Verdict.WORSE
        return Verdict.AS_GOOD if both == {Verdict.AS_GOOD} else Verdict.UNDECIDED

    def __str__(self) -> str:
        return f"success {self.success}; without intervention {self.autonomy}"
