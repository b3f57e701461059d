"""A short selection of seeds; `make chaos` runs a hundred and more."""

from __future__ import annotations

import pytest

from tests.chaos.harness import Harness
from tests.chaos.report import repeat
from tests.chaos.run import Run
from tests.chaos.schedule import schedule_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.mark.parametrize("seed", [1])
def test_a_seed_of_faults_loses_and_doubles_nothing(harness: Harness, seed: int) -> None:
    outcome = Run(harness, schedule_of(seed, events=4_000, robots=6)).execute()
    assert outcome.verdict.anomalies == [], repeat(outcome)
    assert outcome.events > 4_000
    assert outcome.verdict.whole > 10
