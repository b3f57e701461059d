"""A short selection of seeds, on a stack of their own; `make chaos` runs a hundred and more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.harness import harness_on
from tests.chaos.report import repeat
from tests.chaos.run import Run
from tests.chaos.schedule import schedule_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.mark.parametrize("seed", [1])
def test_a_seed_of_faults_loses_and_doubles_nothing_and_reconcile_agrees(seed: int, tmp_path: Path) -> None:
    with harness_on(tmp_path) as harness:
        outcome = Run(harness, schedule_of(seed, events=4_000, robots=6)).execute()
        assert outcome.verdict.anomalies == [], repeat(outcome)
        assert outcome.events > 4_000
        assert outcome.verdict.whole > 10
        audit = harness.audit()
    assert audit.findings == []
    assert audit.checked["robot records"] + audit.checked.get("labels", 0) >= outcome.events
