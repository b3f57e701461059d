"""Settings that change between versions: each version comes out again with those of its time."""

from __future__ import annotations

import threading

import pytest

from infra.object_store import sha256_hex
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.journal import Journal
from learner.patience import Patience
from learner.policies.artifact import pack_json, unpack_json
from learner.rerun import rerun
from learner.resume import Way, resume
from learner.set_aside import SetAside
from schemas.events import Position
from tests.learner.lives import (
    BASE,
    Life,
    fetcher,
    restored,
    shares_follow_the_losses_soon,
)
from tests.learner.test_checkpoint import Bucket, version

pytestmark = pytest.mark.usefixtures(shares_follow_the_losses_soon.__name__)


def test_settings_that_changed_between_versions_count_from_then_on() -> None:
    life = Life(BASE)
    life.live([[(3, [0, 1])]])
    other = BASE.model_copy(update={"batch_size": 16, "online_share": 0.3})
    core = restored(other, life.snapshots[-1])
    for _ in range(4):
        core.update(online=True)
    life.config = other
    life.publish(core, [])
    payloads = fetcher()
    again: TrainingCore | None = None
    for segment in life.segments:
        again = rerun(again, segment, payloads)
        assert sha256_hex(again.artifact()) == segment.sha256
    payloads.close()


@pytest.mark.parametrize("changes", [{"mixing": "fixed"}, {"buffer_steps": 6}, {"learning_rate": 7e-3}])
def test_a_learner_started_again_with_other_settings_goes_the_way_to_the_newest_version_with_those_of_then(
    changes: dict[str, object],
) -> None:
    life = Life(BASE)
    life.live([[(3, [0, 1]), (9, [2])], [(9, [3]), (2, [])], [(3, [5]), (2, [])]])
    announced = {
        segment.version: version(segment.version, segment.sha256).model_copy(
            update={
                "parent_version": segment.parent,
                "config": segment.config,
                "offsets": (Position(partition=2, offset=10 * segment.version),),
            }
        )
        for segment in life.segments
    }
    patience, payloads = Patience(threading.Event()), fetcher()
    journal = Journal(Bucket(), "default", patience)
    for segment in life.segments:
        journal.seal(segment)
    today = BASE.model_copy(update=changes)
    begun = Checkpoint(announced[2], *unpack_json(life.snapshots[1]), SetAside())
    resumed = resume(Way(today, announced, journal, payloads), begun)
    payloads.close()
    assert resumed.at.version == 4
    assert resumed.positions(all_are_counted=False) == {2: 40}
    assert resumed.positions(all_are_counted=True) == {2: 20}
    assert sha256_hex(resumed.core.artifact()) == life.segments[-1].sha256
    straight = restored(today, life.snapshots[-1])
    for core in (resumed.core, straight):
        core.update(online=True)
    assert pack_json(*resumed.core.snapshot()) == pack_json(*straight.snapshot())
