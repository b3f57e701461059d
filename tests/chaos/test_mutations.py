"""The checker can fail: each way of breaking the materializer is seen, and the one that is not broken passes."""

from __future__ import annotations

import pytest

from tests.chaos.harness import Harness
from tests.chaos.mutations import MUTATIONS
from tests.chaos.run import Run
from tests.chaos.schedule import Schedule
from tests.chaos.trials import ALONE, CAUGHT_BY, DISTURBED, KILLED

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

SEEN_AS = {
    "commit-too-early": {"lost write", "poll skip"},
    "no-forward-read": {"duplicate"},
    "no-union": {"lost write", "poll skip"},
    "skip-on-dead-letter-failure": {"lost write", "poll skip"},
    "no-dedupe": {"duplicate"},
    "truncate-on-a-later-start": {"truncated"},
}
"""What the anomaly of each mutation is called; one of the names must come up."""


def test_every_mutation_has_its_schedule_and_its_anomaly() -> None:
    assert MUTATIONS.keys() - {"forget-open-episodes"} == CAUGHT_BY.keys() == SEEN_AS.keys()


@pytest.mark.parametrize("schedule", [ALONE, KILLED, DISTURBED], ids=["alone", "killed", "disturbed"])
def test_the_materializer_as_it_is_passes_what_catches_its_mutations(harness: Harness, schedule: Schedule) -> None:
    outcome = Run(harness, schedule, salt="plain").execute()
    assert outcome.verdict.anomalies == []
    assert outcome.verdict.whole > 0
    if schedule is KILLED:
        assert outcome.faults["kill-with-open-episode"] >= 1


@pytest.mark.parametrize("mutation", sorted(CAUGHT_BY))
def test_a_broken_materializer_is_caught(harness: Harness, mutation: str) -> None:
    outcome = Run(harness, CAUGHT_BY[mutation], mutation=mutation, salt=mutation).execute()
    kinds = {kind for kind, _ in outcome.verdict.anomalies}
    assert kinds & SEEN_AS[mutation], outcome.verdict.anomalies[:5]
