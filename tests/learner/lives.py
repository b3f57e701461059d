"""Short lives of a learner: what it decided, and what came of it, bit for bit."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from infra.object_store import sha256_hex
from infra.settings import LearnerSettings
from learner import adaptive
from learner.algorithms.base import Metrics
from learner.core import TrainingCore
from learner.journal import Beginning, Decision, Entry, Journal, Segment
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.policies.artifact import pack_json, unpack_json
from learner.replay import Batch
from learner.rerun import apply, begin, train_base
from learner.team import ALONE, Team
from schemas.events import EpisodeEnd, EpisodeSource, PolicyVersion
from tests.learner.synthetic import FEATURES, START, Synthetic, make_episode
from tests.learner.test_checkpoint import Bucket, version
from tests.learner.test_payloads import Shelf

BASE = LearnerSettings(
    hidden=(8,), batch_size=8, pretrain_steps=5, mixing="adaptive", adaptive_window=7, recap_value_steps=5
)


@pytest.fixture(scope="module")
def shares_follow_the_losses_soon() -> Iterator[None]:
    """These lives are short: with the usual cold start none of them would draw by its losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "MIN_SAMPLES", 4)
        yield


DEMONSTRATIONS = [
    make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=12)
    for n, task in ((0, "lift"), (1, "push"))
]
# What a fleet may bring: two revisions of each of a few episodes, which end in every way.
ENDS: list[tuple[EpisodeEnd, bool | None]] = [
    (EpisodeEnd.TERMINATED, True),
    (EpisodeEnd.TERMINATED, False),
    (EpisodeEnd.TRUNCATED, False),
    (EpisodeEnd.TRUNCATED, None),
]
FLEET = [
    make_episode(10 + n, steps=8 + revision, human=(2, 6), revision=revision, end=end, success=success)
    for revision in (1, 2)
    for n, (end, success) in enumerate(ENDS)
]


@dataclass
class Trace:
    """What every update drew and lost, by learner step, as hashes of the bits."""

    steps: dict[int, str] = field(default_factory=dict)

    def listen(self, core: TrainingCore) -> None:
        update = core.algorithm.update

        def told(batch: Batch) -> Metrics:
            bits = hashlib.sha256()
            for name in ("states", "tasks", "online", "actions", "mask", "weights", "advantages"):
                bits.update(np.ascontiguousarray(getattr(batch, name)).tobytes())
            metrics = update(batch)
            bits.update(metrics.losses.tobytes())
            self.steps[core.learner_step + 1] = bits.hexdigest()
            return metrics

        core.algorithm.update = told  # type: ignore[method-assign]


def decision(made: Synthetic, offset: int = 0) -> Decision:
    return Decision(record=made.record, partition=0, offset=offset, seen_at=START)


def fetcher(made: list[Synthetic] | None = None) -> PayloadFetcher:
    shelf = Shelf([*DEMONSTRATIONS, *FLEET] if made is None else made)
    return PayloadFetcher(shelf, Patience(threading.Event()), threads=1)


@dataclass
class Life:
    """A learner that nothing happens to, and what it writes down."""

    config: LearnerSettings
    trace: Trace = field(default_factory=Trace)
    segments: list[Segment] = field(default_factory=list)
    snapshots: list[bytes] = field(default_factory=list)
    ranks: int = 1

    def live(self, plan: list[list[tuple[int, list[int]]]]) -> None:
        """`plan`: for each version after the first, pairs of updates and the episodes admitted after them."""
        first = Entry(
            learner_step=0,
            admitted=tuple(decision(made) for made in DEMONSTRATIONS),
            beginning=Beginning(features=FEATURES, fps=10.0),
        )
        assert first.beginning is not None
        core = begin(
            self.config, first.beginning, [made.episode for made in DEMONSTRATIONS], None, Team(self.ranks)
        )
        self.trace.listen(core)
        train_base(core, self.config, lambda: core.update(online=False))
        self.publish(core, [first])
        for decisions in plan:
            entries = []
            for updates, chosen in decisions:
                for _ in range(updates):
                    core.update(online=True)
                made = newest(FLEET[place] for place in chosen if admissible(core, FLEET[place]))
                entry = Entry(learner_step=core.learner_step, admitted=tuple(decision(item) for item in made))
                apply(core, entry, [item.episode for item in made])
                entries.append(entry)
            core.update(online=True)
            self.publish(core, entries)

    def publish(self, core: TrainingCore, entries: list[Entry]) -> None:
        version = len(self.segments) + 1
        segment = Segment(
            policy="default",
            version=version,
            parent=version - 1 or None,
            sha256=sha256_hex(core.artifact()),
            learner_step=core.learner_step,
            config=self.config.model_dump_json(),
            machine="",
            entries=tuple(entries),
            ranks=self.ranks,
        )
        self.segments.append(Segment.model_validate_json(segment.model_dump_json()))
        self.snapshots.append(pack_json(*core.snapshot()))


def newest(made: object) -> list[Synthetic]:
    found: dict[str, Synthetic] = {}
    for item in made:  # type: ignore[attr-defined]
        known = found.pop(item.record.episode_id, item)
        found[item.record.episode_id] = max(known, item, key=lambda one: one.record.revision)
    return list(found.values())


def admissible(core: TrainingCore, made: Synthetic) -> bool:
    known = core.episodes.get(made.record.episode_id)
    return known is None or known.revision < made.record.revision


def restored(config: LearnerSettings, snapshot: bytes, team: Team = ALONE) -> TrainingCore:
    document, tensors = unpack_json(snapshot)
    core = TrainingCore.restore(config, json.loads(json.dumps(document)), tensors, team=team)
    stored = {made.record.payload_uri: made for made in (*DEMONSTRATIONS, *FLEET)}
    for record in list(core.episodes.held()):
        core.refill(stored[record.payload_uri].episode)
    return core


def sealed(life: Life) -> tuple[dict[int, PolicyVersion], Journal]:
    """Announcements of a life's versions, by number, and a journal that has their segments."""
    journal = Journal(Bucket(), "default", Patience(threading.Event()))
    for segment in life.segments:
        journal.seal(segment)
    announced = {
        one.version: version(one.version, one.sha256).model_copy(
            update={"parent_version": one.parent, "config": one.config}
        )
        for one in life.segments
    }
    return announced, journal
