from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.clock import SystemClock
from infra.kafka import EventProducer
from infra.registry import Registry
from learner import progress
from learner.patience import Patience
from learner.progress import ProgressReporter
from tests.learner.integration.site import Site, steps_told, wait_for
from tests.learner.synthetic import START, make_episode
from tests.learner.test_board import curves
from tests.learner.test_core import started


def reporter_of(site: Site, policy: str, curves: Path | None = None) -> ProgressReporter:
    kafka, registry = site.settings.kafka, Registry(site.settings.registry)
    return ProgressReporter(kafka, registry, policy, Patience(threading.Event()), SystemClock(), curves=curves)


def test_skipped_updates_are_told_once_and_each_report_is_a_point_of_the_curves(
    site: Site, tmp_path: Path
) -> None:
    core = started()
    reporter = reporter_of(site, "skips", tmp_path)
    for skipped in ((True, False, True), (False, False), ()):
        for one in skipped:
            drawn = core.update(online=False)
            reporter.note_update(replace(drawn, skipped=one))
        reporter.report(core, (), None)
    reporter.close()
    told = wait_for(lambda: site.progress("skips"))
    assert [(event.learner_step, event.updates_skipped) for event in told] == [(3, 2), (5, 0)]
    assert [metric.name for metric in told[1].metrics] == ["gradient_norm", "learning_rate"]
    found = curves(tmp_path / "skips")
    assert found["updates_skipped"] == [(3, 2.0), (5, 0.0)]
    assert np.allclose([loss for _, loss in found["loss"]], [event.loss for event in told], atol=1e-5)


def test_what_finds_the_queue_full_is_told_by_the_next_report_and_shown_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, reporter = started(), reporter_of(site, "full", tmp_path)
    send, room = EventProducer.send, iter((False, False, True, False))
    monkeypatch.setattr(EventProducer, "send", lambda *given: next(room, True) and send(*given))
    for updates in (3, 2, 4):
        for _ in range(updates):
            reporter.note_update(core.update(online=False))
        reporter.report(core, (), None)
    reporter.note_update(core.update(online=False))
    reporter.settle(core, (), None)
    told = site.progress("full")  # no wait: it is there when `settle` returns
    reporter.close()
    assert [event.learner_step for event in told] == [9, 10]
    assert [sum(group.draws for group in event.groups) for event in told] == [
        count * core.settings.batch_size for count in (9, 1)
    ]
    assert steps_told(told) == set(range(1, 11))
    assert [step for step, _ in curves(tmp_path / "full")["loss"]] == [9, 10]


def test_admissions_beyond_what_a_record_may_hold_are_told_by_the_next_report(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_EPISODES_PER_PART", 3)
    core, reporter = started(), reporter_of(site, "many")
    episodes = [make_episode(number) for number in range(8)]
    for made in episodes[:7]:
        reporter.note_admission(made.record, START)
    reporter.note_update(core.update(online=False))
    assert not reporter.report(core, (), None)
    reporter.note_admission(episodes[7].record, START)
    reporter.settle(core, (), None)
    told = site.progress("many")
    reporter.close()
    assert [len(event.admitted) for event in told] == [3, 3, 2]
    assert [one.episode_id for event in told for one in event.admitted] == [
        made.record.episode_id for made in episodes
    ]
    assert [bool(event.groups) for event in told] == [True, False, False]


@pytest.mark.slow
def test_reports_outlast_an_outage_that_is_longer_than_a_producer_tries_by_itself(
    own_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = EventProducer.__init__.__kwdefaults__ or {}
    assert defaults["delivery_timeout"] == 120.0
    monkeypatch.setitem(defaults, "delivery_timeout", 1.0)
    core, reporter = started(), reporter_of(own_site, "away")
    for restart in (False, True):
        reporter.note_update(core.update(online=False))
        reporter.report(core, (), None)
        if not restart:
            wait_for(lambda: own_site.progress("away"))
            own_site.stack.kill("broker")
    until = time.monotonic() + 4.0
    while time.monotonic() < until:  # deliveries that are given up are given up while it is asked
        reporter.report(core, (), None)
        reporter._producer.poll(0.1)
    own_site.stack.restart("broker")
    reporter.settle(core, (), None)
    assert steps_told(own_site.progress("away")) == {1, 2}
    reporter.close()
