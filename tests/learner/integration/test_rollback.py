"""A rollback while a learner runs: it goes on from the restored version, and a kill brings nothing back."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from infra.policies import rollout
from infra.policies.log import RolloutLog
from infra.policies.rollout import Change
from learner.journal import Entry, Journal
from learner.patience import Patience
from learner.reproduce import replay
from learner.restoring import past_of
from tests.learner.integration.site import Site, terminate, wait_for
from tests.learner.integration.test_live import DEMONSTRATIONS, STOP_SECONDS, online
from tests.learner.synthetic import Synthetic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BY = Change("ada", "v4 drops things", datetime(2026, 3, 1, tzinfo=UTC))
SETTINGS = {"PRETRAIN_EPISODES": "2", "CHECKPOINTS_KEPT": "1"}


def test_after_a_rollback_the_learner_goes_on_from_the_restored_version_though_it_was_killed(site: Site) -> None:
    log = RolloutLog(site.settings)
    line = "restored"
    site.put(DEMONSTRATIONS)
    with site.learner(line, SETTINGS) as process:
        site.wait_for_version(line, 1)
        # What the rollout names is kept, however few checkpoints are: here version 1.
        log.change(line, rollout.hold(line, 1), BY)
        for first in (600, 605, 610):
            before = site.versions(line)[-1].version
            site.put(online(first, 2))
            site.wait_for_version(line, before + 1)
        given_up = site.versions(line)[-1].version
        assert given_up >= 4
        log.change(line, rollout.rollback(line, 1), BY)
        wait_for(lambda: "learner_starts_again" in site.log(line))
        wait_for(lambda: "learner_rolls_back" in site.log(line))
        process.kill()
        process.wait()
    with site.learner(line, SETTINGS) as process:
        site.put(online(620, 3))
        newest = site.versions(line)[-1].version
        versions = site.wait_for_version(line, max(newest, given_up) + 2)
        assert terminate(process, within=STOP_SECONDS) == 0
    published = {version.version: version for version in versions}
    assert sorted(published) == list(range(1, len(published) + 1)), "no number is used twice"
    past = sorted(past_of(published, max(published)))
    between = [number for number in past if 1 < number <= given_up]
    assert between == [], "nothing of what was given up is an ancestor"
    first_after = published[past[1]]
    assert first_after.parent_version == 1
    assert first_after.learner_step == published[1].learner_step + 20
    assert site.log(line).count("learner_rolls_back") == 1, "a rollback is obeyed once"


def test_a_version_whose_checkpoint_is_gone_is_trained_again_from_the_lines_beginning(site: Site) -> None:
    log = RolloutLog(site.settings)
    line = "beyond"
    site.put(DEMONSTRATIONS)
    with site.learner(line, SETTINGS):
        site.wait_for_version(line, 1)
        for first in (650, 655, 660):
            before = site.versions(line)[-1].version
            site.put(online(first, 2))
            site.wait_for_version(line, before + 1)
    given_up = site.versions(line)[-1].version
    assert all(int(key.split("-")[-2]) > 2 for key in site.store.list(f"checkpoints/{line}/"))
    log.change(line, rollout.rollback(line, 2), BY)
    with site.learner(line, SETTINGS) as process:
        site.put(online(670, 3))
        versions = site.wait_for_version(line, given_up + 2)
        assert terminate(process, within=STOP_SECONDS) == 0
    assert "training_again_from_the_beginning" in site.log(line)
    published = {version.version: version for version in versions}
    past = sorted(past_of(published, max(published)))
    assert past[:2] == [1, 2]
    assert past[2] > given_up
    assert published[past[2]].learner_step == published[2].learner_step + 20
    assert replay(site.settings, line, max(published)).equal


def test_what_is_decided_after_a_rollback_is_taken_up_by_whoever_comes_after_a_kill(site: Site) -> None:
    log, line = RolloutLog(site.settings), "decided"
    settings = SETTINGS | {"CHECKPOINTS_KEPT": "50"}
    site.put([*DEMONSTRATIONS, *online(700, 2)])
    with site.learner(line, settings):
        site.wait_for_version(line, 3)
    given_up = site.versions(line)[-1].version
    journal = Journal(site.store, line, Patience(threading.Event()))
    # As a learner leaves it that dies between an announcement and its next journal: decisions that made version 2.
    stale = Entry(learner_step=journal.segment(site.versions(line)[0]).learner_step, forgotten=("given up",))
    journal.take_over(1, "f" * 40, (stale,))
    log.change(line, rollout.rollback(line, 1), BY)
    with site.learner(line, settings, command=("tests.learner.integration.crash", "seal", "1")) as process:
        assert process.wait(300.0) == -9
    decided = journal.tail(1)
    assert stale not in decided, "a rollback gives up what was decided after the version that it goes back to"
    assert any(entry.admitted for entry in decided)
    site.put(online(710, 2))
    with site.learner(line, settings) as process:
        versions = site.wait_for_version(line, given_up + 1)
        assert terminate(process, within=STOP_SECONDS) == 0
    first_after = next(version for version in versions if version.version == given_up + 1)
    assert first_after.parent_version == 1
    assert journal.segment(first_after).entries[: len(decided)] == decided


def test_a_rollback_that_cannot_be_carried_out_is_withdrawn_by_promote(site: Site) -> None:
    log, line = RolloutLog(site.settings), "no-way"
    site.put([*DEMONSTRATIONS, *online(720, 3)])
    with site.learner(line, SETTINGS):
        site.wait_for_version(line, 4)
    versions = site.versions(line)
    newest = versions[-1].version
    journal = Journal(site.store, line, Patience(threading.Event()))
    site.store.delete(journal._key(1, versions[0].sha256))
    log.change(line, rollout.rollback(line, 2), BY)
    before = site.store.list(f"journals/{line}/")
    with site.learner(line, SETTINGS) as process:
        assert process.wait(300.0) == 1
    assert "nor can it be trained again" in site.log(line)
    assert site.store.list(f"journals/{line}/") == before, "nothing was given up"
    log.change(line, rollout.promote(line, newest), BY)
    with site.learner(line, SETTINGS) as process:
        site.put(online(730, 3))
        following = site.wait_for_version(line, newest + 1)[newest]
        assert terminate(process, within=STOP_SECONDS) == 0
    assert following.parent_version == newest


def test_a_version_that_was_sealed_and_not_announced_is_given_up_by_a_rollback(own_site: Site) -> None:
    site = own_site
    log, line = RolloutLog(site.settings), "sealed"
    poison = online(745, 1)[0]
    site.put([*DEMONSTRATIONS, poison])
    with site.learner(line, SETTINGS, command=("tests.learner.integration.crash", "announcement", "2")) as process:
        assert process.wait(300.0) == -9
    assert [version.version for version in site.versions(line)] == [1]
    assert any("-00000002-" in key for key in site.store.list(f"checkpoints/{line}/"))
    excluded = poison.event.model_copy(update={"revision": 2, "excluded": True})
    site.put([Synthetic(excluded, poison.payload)])
    log.change(line, rollout.rollback(line, 1), BY)
    with site.learner(line, SETTINGS) as process:
        site.put(online(750, 3))
        second = site.wait_for_version(line, 2)[1]
        assert terminate(process, within=STOP_SECONDS) == 0
    journal = Journal(site.store, line, Patience(threading.Event()))
    entries = journal.segment(second).entries
    admitted = {decision.record.episode_id for entry in entries for decision in entry.admitted}
    assert admitted
    assert poison.record.episode_id not in admitted
