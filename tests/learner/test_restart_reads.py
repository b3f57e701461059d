"""A restart reads the payloads that something was selected from, and goes on as if it had read them all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from infra.payload_names import COLUMN
from infra.settings import LearnerSettings, Settings
from learner import ranks
from learner import resume as resume_module
from learner.algorithms.recap import _BEYOND_ALL, Recap
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import EpisodesLost
from learner.halfway import Halfway
from learner.journal import Beginning, Journal
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.policies.artifact import pack_json
from learner.ranks import SharedFetcher, follow
from learner.rerun import begin, train_base, with_settings
from learner.resume import Resumed, Way, restore, resume
from learner.selection import Selection
from learner.set_aside import SetAside
from learner.team import ALONE, Team
from schemas.events import EpisodeEnd, EpisodeSource
from tests.learner.lives import BASE, DEMONSTRATIONS, Trace, fetcher, shares_follow_the_losses_soon
from tests.learner.synthetic import FEATURES, Synthetic, make_episode
from tests.learner.test_checkpoint import Bucket, version
from tests.learner.test_payloads import Shelf
from tests.learner.together import END, Threads

pytestmark = pytest.mark.usefixtures(shares_follow_the_losses_soon.__name__)

CORRECTED, AUTONOMOUS, DEMONSTRATED, DEMONSTRATED_IN_VAIN = range(4)
"""Kinds of episodes: HG-DAgger selects from the first and the third."""


def episode(number: int, kind: int, revision: int = 1) -> Synthetic:
    demonstrated = kind in {DEMONSTRATED, DEMONSTRATED_IN_VAIN}
    return make_episode(
        10 + number,
        steps=8 + number % 3 + revision,
        human=(2, 6) if kind == CORRECTED else None,
        source=EpisodeSource.DEMONSTRATION if demonstrated else EpisodeSource.ONLINE,
        success=kind != DEMONSTRATED_IN_VAIN,
        end=EpisodeEnd.TERMINATED,
        revision=revision,
    )


@dataclass
class Doing:
    """A core, and what was done to it."""

    core: TrainingCore
    revisions: dict[int, int] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)
    made: list[Synthetic] = field(default_factory=lambda: list(DEMONSTRATIONS))

    def do(self, steps: list[tuple[str, int, int]]) -> None:
        for what, number, kind in steps:
            if what == "update":
                self.core.update(online=True)
            elif what == "forget":
                self.core.forget(episode(number, kind).record.episode_id)
                self.kinds.pop(number, None)
            else:
                self.revisions[number] = self.revisions.get(number, 0) + 1
                self.kinds[number] = kind
                self.made.append(episode(number, kind, self.revisions[number]))
                self.core.admit(self.made[-1].episode)

    def again(self, core: TrainingCore) -> Doing:
        return Doing(core, dict(self.revisions), dict(self.kinds), list(self.made))


def begun(config: LearnerSettings, team: Team = ALONE) -> Doing:
    first = [made.episode for made in DEMONSTRATIONS]
    core = begin(config, Beginning(features=FEATURES, fps=10.0), first, None, team)
    train_base(core, config, lambda: core.update(online=False))
    return Doing(core)


def checkpoint(core: TrainingCore) -> Checkpoint:
    announcement = version(2).model_copy(update={"config": core.settings.model_dump_json()})
    return Checkpoint.unpack(Checkpoint(announcement, *core.snapshot(), SetAside()).pack())


def of_earlier_software(saved: Checkpoint) -> Checkpoint:
    """The same, by a learner that did not note what it selected nothing from."""
    core = {name: value for name, value in saved.core.items() if name != "selected_by"}
    tensors = {name: rows for name, rows in saved.tensors.items() if name != COLUMN + "unselected"}
    assert (len(core), len(tensors)) == (len(saved.core) - 1, len(saved.tensors) - 1)
    return Checkpoint(saved.announcement, core, tensors, saved.set_aside)


def restored(
    config: LearnerSettings, saved: Checkpoint, made: list[Synthetic], team: Team = ALONE
) -> tuple[Resumed, list[str]]:
    """The core of a checkpoint, and the payloads that were read, in their order."""
    shelf = Shelf(made)
    payloads = PayloadFetcher(shelf, Patience(threading.Event()), threads=1)
    resumed = restore(config, saved, payloads, team=team)
    payloads.close()
    return resumed, shelf.asked


def keys(made: list[Synthetic], core: TrainingCore, kinds: set[int], those: dict[int, int]) -> list[str]:
    """Where the payloads lie of what the core holds of these kinds, in the order of admission."""
    by_id = {one.record.episode_id: number for number in those for one in (episode(number, 0),)}
    shelf = Shelf([])
    return [
        shelf.key(record.payload_uri)
        for record in core.episodes.held()
        if record.episode_id not in by_id or those[by_id[record.episode_id]] in kinds
    ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "admit", "update", "forget"]), st.integers(0, 5), st.integers(0, 3)
    ),
    max_size=14,
)


@pytest.mark.parametrize(
    ("changes", "ranks"),
    [({}, 1), ({"buffer_steps": 25}, 1), ({"buffer_steps": 3}, 1), ({"buffer_steps": 25}, 3)],
    ids=["no limit", "a limit", "a limit below one episode", "several ranks"],
)
def test_what_was_selected_nothing_from_is_not_read_and_the_batches_losses_and_versions_are_the_same(
    changes: dict[str, Any], ranks: int
) -> None:
    config = BASE.model_copy(update=changes)

    @settings(max_examples=15, deadline=None)
    @given(STEPS, STEPS, STEPS)
    def check(before: list[Any], between: list[Any], after: list[Any]) -> None:
        unbroken = begun(config, Team(ranks))
        unbroken.do(before)
        saved = checkpoint(unbroken.core)
        resumed, read = restored(config, saved, unbroken.made, Team(ranks))
        drawn_from = keys(unbroken.made, unbroken.core, {CORRECTED, DEMONSTRATED}, unbroken.kinds)
        assert read == drawn_from
        all_read, everything = restored(config, of_earlier_software(saved), unbroken.made, Team(ranks))
        assert everything == keys(unbroken.made, unbroken.core, {0, 1, 2, 3}, unbroken.kinds)
        assert not resumed.lost
        lives = [unbroken, unbroken.again(resumed.core), unbroken.again(all_read.core)]
        traces = [Trace() for _ in lives]
        for life, trace in zip(lives, traces, strict=True):
            trace.listen(life.core)
            life.do([*between, ("update", 0, 0)])
        twice, _ = restored(config, checkpoint(lives[1].core), lives[1].made, Team(ranks))
        lives[1] = lives[1].again(twice.core)
        traces[1].listen(twice.core)
        for life in lives:
            life.do([*after, ("update", 0, 0), ("update", 0, 0)])
        assert traces[1:] == traces[:1] * 2
        assert len({pack_json(*life.core.snapshot()) for life in lives}) == 1
        for life in lives:
            life.core.close()

    check()


CHANGES_OF_MIND: list[tuple[str, int, int]] = [
    ("admit", 0, CORRECTED),
    ("admit", 1, AUTONOMOUS),
    ("admit", 2, AUTONOMOUS),
    ("admit", 3, AUTONOMOUS),
    ("admit", 4, DEMONSTRATED_IN_VAIN),
    ("update", 0, 0),
    ("admit", 1, CORRECTED),  # another revision
    ("admit", 0, AUTONOMOUS),
    ("update", 0, 0),
]


def lived(config: LearnerSettings = BASE, team: Team = ALONE) -> Doing:
    """A life after which episodes 0, 2, 3 and 4 have nothing to draw, and 1 has."""
    life = begun(config, team)
    life.do(CHANGES_OF_MIND)
    return life


def sizes(core: TrainingCore) -> Any:
    return core._buffer.sizes()


def test_what_is_gone_from_the_bucket_and_of_no_use_is_not_lost() -> None:
    life = lived()
    of_use = [*DEMONSTRATIONS, episode(1, CORRECTED, 2)]
    resumed, read = restored(BASE, checkpoint(life.core), of_use)
    assert not resumed.lost
    assert len(read) == 3
    assert len(list(resumed.core.episodes.held())) == 7


def test_where_much_of_what_is_read_is_gone_nobody_goes_on_however_much_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resume_module, "_FEW_LOST", 0)
    monkeypatch.setattr(resume_module, "_FEW_LOST_SHARE", 0.3)
    life = lived()
    saved, patience = checkpoint(life.core), Patience(threading.Event())
    payloads = PayloadFetcher(Shelf(DEMONSTRATIONS), patience, threads=1)
    way = Way(BASE, {2: saved.announcement}, Journal(Bucket(), "default", patience), payloads)
    with pytest.raises(EpisodesLost, match="1 of the 3 episodes"):
        resume(way, saved)
    payloads.close()


def test_another_weight_of_autonomous_steps_reads_everything_and_brings_them_in() -> None:
    life = lived()
    other = BASE.model_copy(update={"hg_autonomous_weight": 0.5})
    resumed, read = restored(other, checkpoint(life.core), life.made)
    assert len(read) == 7
    assert [resumed.core.episodes.unselected(row) for row in range(resumed.core.episodes.rows)].count(True) == 1
    straight = begun(other)
    straight.do([step for step in CHANGES_OF_MIND if step[0] != "update"])
    assert (sizes(resumed.core) == sizes(straight.core)).all()
    shelf = Shelf(life.made)
    payloads = PayloadFetcher(shelf, Patience(threading.Event()), threads=1)
    again = with_settings(resumed.core, BASE, payloads)
    assert (sizes(again) == sizes(life.core)).all()
    assert len(shelf.asked) == 7
    payloads.close()


OTHERS: dict[str, Any] = {
    "hg_takeover_steps": 3,
    "hg_takeover_weight": 0.5,
    "hg_failed_weight": 0.0,
    "recap_look_ahead": 7,
    "recap_failure_penalty": 2.0,
    "buffer_steps": 10_000,
    "seed": 9,
    "ema_half_life": 3.0,
}
OF_NO_ACCOUNT: dict[str, Any] = {
    "pretrain_steps": 9,
    "batch_size": 16,
    "learning_rate": 7e-3,
    "publish_every": 7,
    "checkpoints_kept": 9,
    "checkpoint_every": 9,
    "max_updates_per_online_step": 9.0,
    "mixing": "fixed",
    "online_share": 0.3,
    "adaptive_alpha": 2.0,
    "adaptive_clip": (0.1, 0.9),
    "adaptive_normalise": True,
    "task_weights": {"lift": 2.0},
    "tensorboard": "curves",
}


@pytest.mark.parametrize("name", [*OTHERS, *OF_NO_ACCOUNT])
def test_any_other_setting_reads_everything_but_for_those_that_decide_no_selection(name: str) -> None:
    life = lived()
    changed = LearnerSettings.model_validate(BASE.model_dump() | {name: (OTHERS | OF_NO_ACCOUNT)[name]})
    assert changed != BASE
    _, read = restored(changed, checkpoint(life.core), life.made)
    assert len(read) == (3 if name in OF_NO_ACCOUNT else 7)


def test_of_what_an_algorithm_knows_something_it_is_asked_again_though_it_selected_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RECAP, but that it draws from nothing that the fleet does: thresholds are over its steps all the same."""
    select = Recap.select

    def none_of_the_fleets(self: Recap, one: Episode) -> Selection:
        found = select(self, one)
        return replace(found, drawable=found.drawable & (not one.record.online))

    monkeypatch.setattr(Recap, "select", none_of_the_fleets)
    config = BASE.model_copy(update={"algorithm": "recap"})
    life = lived(config)
    life.do([("admit", 5, CORRECTED)])
    life.made.append(make_episode(30, steps=0))
    life.core.admit(life.made[-1].episode)
    resumed, read = restored(config, checkpoint(life.core), life.made)
    assert len(read) == 8, "all but the one without a step"
    thresholds = [core.algorithm.thresholds().tolist() for core in (life.core, resumed.core)]  # type: ignore[attr-defined]
    assert thresholds[0] == thresholds[1]
    assert thresholds[0] != [_BEYOND_ALL] * 2


def test_a_base_that_was_interrupted_reads_what_it_draws_from_only() -> None:
    begun_with = [*DEMONSTRATIONS, episode(0, AUTONOMOUS), episode(1, CORRECTED), episode(2, AUTONOMOUS)]
    cores = []
    for _ in range(2):
        beginning = Beginning(features=FEATURES, fps=10.0)
        cores.append(begin(BASE, beginning, [made.episode for made in begun_with]))
    halfway, shelf = Halfway(Bucket(), "default", Patience(threading.Event())), Shelf(begun_with)
    cores[0].update(online=False)
    halfway.save(cores[0])
    payloads = PayloadFetcher(shelf, Patience(threading.Event()), threads=1)
    again = halfway.resume(cores[1], payloads)
    payloads.close()
    assert again is not cores[1]
    assert shelf.asked == [shelf.key(begun_with[place].record.payload_uri) for place in (0, 1, 3)]
    for core in (cores[0], again):
        core.update(online=False)
    assert pack_json(*again.snapshot()) == pack_json(*cores[0].snapshot())


def test_a_base_that_had_begun_with_other_settings_begins_anew_and_says_so() -> None:
    beginning, halfway = (
        Beginning(features=FEATURES, fps=10.0),
        Halfway(Bucket(), "x", Patience(threading.Event())),
    )
    begun_with, nothing = [made.episode for made in DEMONSTRATIONS], fetcher([])
    core = begin(BASE, beginning, begun_with)
    core.update(online=False)
    halfway.save(core)
    other = begin(BASE.model_copy(update={"batch_size": 4, "learning_rate": 1e-4}), beginning, begun_with)
    with capture_logs() as logs:
        assert halfway.resume(other, nothing) is other
    nothing.close()
    assert [one["settings"] for one in logs if one["event"] == "training_begins_anew"] == [
        ["batch_size", "learning_rate"]
    ]


def test_all_ranks_leave_the_same_unread_and_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    life = lived(team=Team(2))
    saved = checkpoint(life.core)
    wire, shelf, ours = Threads(2), Shelf(life.made), Shelf(life.made)
    monkeypatch.setattr(
        ranks,
        "make_fetcher",
        lambda _settings, _store, patience, _team: PayloadFetcher(shelf, patience, threads=1),
    )
    first = SharedFetcher(ours, Patience(threading.Event()), threads=1)
    first.team = wire.of(0)
    with ThreadPoolExecutor(1) as threads:
        follower = threads.submit(follow, Settings(), wire.of(1), threading.Event())
        resumed = restore(BASE, saved, first, team=first.team)
        read = len(ours.asked) + len(shelf.asked)
        for update in range(3):
            resumed.core.update(online=True)
            life.core.update(online=True)
            resumed.core.require_agreement()
            assert resumed.core.artifact() == life.core.artifact(), update
        # What is admitted now is noted by all ranks as its owner says.
        for made in (episode(5, AUTONOMOUS), episode(2, CORRECTED, 2)):
            shelf._objects |= Shelf([made])._objects
            ours._objects |= Shelf([made])._objects
            resumed.core.admit(first.take(made.record))
            life.core.admit(made.episode)
        resumed.core.update(online=True)
        life.core.update(online=True)
        resumed.core.require_agreement()
        first.team.tell(END)
        follower.result(60.0)
    first.close()
    assert read == 3
    assert pack_json(*resumed.core.snapshot()) == pack_json(*life.core.snapshot())
