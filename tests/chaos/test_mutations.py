"""The checker can fail: each way of breaking the materializer is seen, and the one that is not broken passes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet

from tests.chaos.harness import Harness
from tests.chaos.mutations import MUTATIONS
from tests.chaos.run import PATIENCE, Run
from tests.chaos.trials import ALONE, CAUGHT_BY, DISTURBED, KILLED, UNANSWERED

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SEEN_AS = {
    "commit-too-early": {"lost write", "poll skip"},
    "forget-open-episodes": {"lost write", "poll skip"},
    "no-bound-on-requests": {"stuck"},
    "no-forward-read": {"duplicate"},
    "no-union": {"lost write", "poll skip"},
    "skip-on-dead-letter-failure": {"lost write", "poll skip"},
    "no-dedupe": {"duplicate"},
    "truncate-on-a-later-start": {"truncated"},
}
"""What the anomaly of each mutation is called; one of the names must come up."""
STUCK_AFTER = 20.0
"""Seconds without progress; the materializer as it is passes the same schedule, and goes on at once."""


def test_every_mutation_has_its_schedule_and_its_anomaly() -> None:
    assert MUTATIONS.keys() == CAUGHT_BY.keys() == SEEN_AS.keys()


SCHEDULES = {"alone": ALONE, "killed": KILLED, "disturbed": DISTURBED, "unanswered": UNANSWERED}
SHORT = {"disturbed", "no-dedupe", "no-forward-read"}
"""What `make test` has the time for; `make test-chaos` runs all."""


def _trials(names: Iterable[str]) -> list[ParameterSet]:
    return [pytest.param(name, marks=[] if name in SHORT else [pytest.mark.soak]) for name in names]


@pytest.mark.parametrize("name", _trials(SCHEDULES))
def test_the_materializer_as_it_is_passes_what_catches_its_mutations(harness: Harness, name: str) -> None:
    schedule = SCHEDULES[name]
    outcome = Run(harness, schedule, salt="plain").execute()
    assert outcome.verdict.anomalies == []
    assert outcome.verdict.whole > 0
    if schedule is KILLED:
        assert outcome.faults["kill-with-open-episode"] >= 1
    if schedule is UNANSWERED:
        assert outcome.faults["s3-stall"] == 1, "some request was left without an answer"


@pytest.mark.parametrize("mutation", _trials(sorted(CAUGHT_BY)))
def test_a_broken_materializer_is_caught(harness: Harness, mutation: str) -> None:
    patience = STUCK_AFTER if "stuck" in SEEN_AS[mutation] else PATIENCE
    schedule = CAUGHT_BY[mutation]
    for attempt in range(3):
        salt = f"{mutation}-{attempt}"
        outcome = Run(harness, schedule, mutation=mutation, salt=salt, patience=patience).execute()
        # On a slow machine nothing may be open when the member dies, and then there is nothing to catch.
        if schedule is not KILLED or outcome.faults["kill-with-open-episode"]:
            break
    kinds = {kind for kind, _ in outcome.verdict.anomalies}
    assert kinds & SEEN_AS[mutation], outcome.verdict.anomalies[:5]
