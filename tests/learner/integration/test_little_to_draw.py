"""Nothing to learn from, at a line's beginning or once all payloads are gone: the learner waits for what comes."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from learner import train
from learner.journal import Entry, Journal
from learner.patience import Patience
from schemas.events import EpisodeSource
from tests.learner.integration.site import Site, terminate, wait_for
from tests.learner.integration.test_live import DEMONSTRATIONS, STOP_SECONDS, online
from tests.learner.lives import decision
from tests.learner.synthetic import make_episode
from tests.learner.together import Threads

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_ranks_wait_where_the_first_demonstration_has_no_step(
    own_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, stop, wire = own_site, threading.Event(), Threads(2)
    teams = iter([wire.of(0), wire.of(1)])
    monkeypatch.setattr(train, "assemble", lambda _beat: next(teams))
    changes = {"policy": "empty", "hidden": (4,), "batch_size": 4, "pretrain_steps": 3}
    settings = site.settings.model_copy(update={"learner": site.settings.learner.model_copy(update=changes)})
    site.put([make_episode(1, source=EpisodeSource.DEMONSTRATION, steps=0)])
    with capture_logs() as logs, ThreadPoolExecutor(2) as threads:
        running = [threads.submit(train.run, settings, stop) for _ in range(2)]
        try:
            wait_for(
                lambda: (
                    any(one.done() for one in running)
                    or any(entry["event"] == "demonstrations_do_not_suffice" for entry in logs)
                )
            )
            assert not any(one.done() for one in running)
            site.put([make_episode(n, source=EpisodeSource.DEMONSTRATION) for n in (2, 3)])
            (first,) = site.wait_for_version("empty", 1)
        finally:
            stop.set()
    for one in running:
        one.result(60.0)
    assert first.episodes_admitted >= 2


def test_where_all_payloads_are_gone_the_learner_goes_on_with_what_comes(own_site: Site) -> None:
    site, line, settings = own_site, "gone", {"PRETRAIN_EPISODES": "2"}
    made = [*DEMONSTRATIONS, *online(10, 1)]
    site.put(made)
    with site.learner(line, settings):
        second = site.wait_for_version(line, 2)[1]
    # As a learner leaves it that admitted an episode after a few updates more.
    decided, journal = online(20, 1)[0], Journal(site.store, line, Patience(threading.Event()))
    entry = Entry(learner_step=second.learner_step + 5, admitted=(decision(decided),))
    journal.take_over(2, "f" * 40, (entry,))
    for key in site.store.list("episodes/"):
        site.store.delete(key)
    shutil.rmtree(site.settings.cache.directory)
    with site.learner(line, settings) as process:
        site.put(online(30, 2))
        third = site.wait_for_version(line, 3)[2]
        assert terminate(process, within=STOP_SECONDS) == 0
    assert site.log(line).count("episode_lost") == len(made) + 1
    assert third.parent_version == 2
    lost, *_ = journal.segment(third).entries
    assert lost.learner_step == second.learner_step
    assert set(lost.forgotten) == {one.record.episode_id for one in made}
