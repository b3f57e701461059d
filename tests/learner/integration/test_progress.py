from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from infra.clock import SystemClock
from infra.registry import Registry
from learner.patience import Patience
from learner.progress import ProgressReporter
from learner.sampler import Drawn
from tests.learner.integration.site import Site, wait_for
from tests.learner.test_board import curves
from tests.learner.test_core import started


def test_skipped_updates_are_told_once_and_each_report_is_a_point_of_the_curves(
    site: Site, tmp_path: Path
) -> None:
    core = started()
    reporter = ProgressReporter(
        site.settings.kafka,
        Registry(site.settings.registry),
        "skips",
        Patience(threading.Event()),
        SystemClock(),
        curves=tmp_path,
    )
    for skipped in ((True, False, True), (False, False), ()):
        for one in skipped:
            drawn = core.update(online=False)
            reporter.note_update(Drawn(drawn.losses, drawn.shares, one))
        reporter.report(core, (), None)
    reporter.close()
    told = wait_for(lambda: site.progress("skips"))
    assert [(event.learner_step, event.updates_skipped) for event in told] == [(3, 2), (5, 0)]
    found = curves(tmp_path / "skips")
    assert found["updates_skipped"] == [(3, 2.0), (5, 0.0)]
    assert np.allclose([loss for _, loss in found["loss"]], [event.loss for event in told], atol=1e-5)
