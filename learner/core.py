"""The pure core of the learner: episodes in, gradient steps, weights out. No Kafka, no S3, no clock.

With the same settings, the same admissions in the same order and the same calls of `update`, the weights are the
same bit for bit; `snapshot` and `restore` continue such a run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from infra.object_store import sha256_hex
from infra.payload_names import COLUMN
from infra.settings import LearnerSettings
from learner.adaptive import AdaptiveMixing
from learner.algorithms import make_algorithm
from learner.algorithms.base import Fitting, unheard
from learner.episode_index import EpisodeIndex
from learner.episodes import Episode, EpisodeRecord
from learner.errors import RanksDisagree, UnfitEpisode
from learner.frames import Room
from learner.plausible import implausible
from learner.policies.artifact import Arrays, pack, pack_json
from learner.policies.base import Floats, PolicySpec
from learner.replay import Batch, ReplayBuffer
from learner.sampler import Drawn, FixedMixing, GroupLosses, Sampler
from learner.selection import deciding
from learner.team import ALONE, Team
from schemas.events import EpisodeDraws, EpisodeMaterialized, EpisodeSource

_NOTHING = bytes(8)
"""What the owner of an episode tells that has nothing to draw, and of which nothing is known."""

_log = structlog.get_logger(__name__)


class TrainingCore:
    """One policy in training with all that decides its future."""

    def __init__(
        self,
        settings: LearnerSettings,
        spec: PolicySpec,
        *,
        room: Room | None = None,
        index: EpisodeIndex | None = None,
        team: Team = ALONE,
    ) -> None:
        """Start with random weights; `room` and `index` are the buffer's, `team` is who trains together."""
        self.spec = spec
        self.settings = settings
        self.algorithm = make_algorithm(settings, spec)
        self.team = self.algorithm.team = team
        self.sampler = make_sampler(settings, spec)
        self.random = np.random.default_rng(settings.seed)
        self.learner_step = 0
        self.online_updates = 0
        self.online_steps = 0
        self._paid: dict[str, int] = {}
        """Online steps by episode that was forgotten: updates were allowed for them, and are not again."""
        self.room = room or Room()
        self._buffer = ReplayBuffer(
            spec, settings.batch_size, limit=settings.buffer_steps, room=self.room, index=index, team=team
        )
        self.episodes = self._buffer.index
        self.draws = self._buffer.draws
        self._task_weights = task_weights(settings, spec)
        self._updates_per_online_step = settings.max_updates_per_online_step

    @property
    def steps_admitted(self) -> int:
        """Steps of all admitted episodes."""
        return self.episodes.step_count

    @property
    def trainable(self) -> bool:
        """Whether there is any frame to draw."""
        return bool(self._buffer.sizes().any())

    def require_admissible(self, event: EpisodeMaterialized) -> None:
        """Refuse an episode that the policy cannot learn from.

        Raises:
            UnfitEpisode: of another kind of robot, or another control rate.
            UnknownTask: the policy does not know its task.
        """
        self.spec.require_fit(event.features, event.fps)
        self.spec.task_index(event.task)

    def require_plausible(self, episode: Episode) -> None:
        """Refuse an episode with readings that no sensor gives; see `learner.plausible`.

        Raises:
            UnfitEpisode: the text says which reading it is.
        """
        self._say("judge", record=episode.record.model_dump(mode="json"))
        found = self.team.share(episode.record.episode_id, lambda: implausible(self.spec, episode.frames).encode())
        if found:
            raise UnfitEpisode(found.decode())

    def prepare(self, episodes: Sequence[Episode], fitting: Fitting = unheard) -> None:
        """Before anything is admitted: what the algorithm must learn from what the line begins with."""
        self.algorithm.prepare(episodes, self.room, fitting)

    def admit(self, episode: Episode) -> None:
        """Make an episode available to training, in the place of its earlier revision if there was one.

        Raises:
            UnknownTask: the policy does not know its task.
            ValueError: the episode is an evaluation, or older than what was admitted of it.
        """
        self._require_admissible(episode.record)
        self._say("admit", record=episode.record.model_dump(mode="json"))
        row = self.episodes.row(episode.record.episode_id)
        paid = self._paid.pop(episode.record.episode_id, 0)
        before = self.episodes.steps[row] if row is not None else paid
        self._fill(episode)
        if episode.record.online:
            self.online_steps += episode.record.step_count - before

    def refill(self, episode: Episode) -> None:
        """After `restore`, bring the frames of an episode back; `episodes.to_refill()`, in their order."""
        self._say("refill", record=episode.record.model_dump(mode="json"))
        self._fill(episode)

    def forget(self, episode_id: str) -> None:
        """Drop an episode that a label excludes, or whose payload can no longer be read."""
        self._say("forget", **{"with": {"episode_id": episode_id}})
        row = self.episodes.row(episode_id)
        if row is not None and self.episodes.online(row):
            self._paid[episode_id] = self.episodes.steps[row]
        self._buffer.remove(episode_id)
        self.algorithm.forget(episode_id)

    def close(self) -> None:
        """Nothing more is drawn: the disk has its room back."""
        self._buffer.close()

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """A new phase of training; see `Algorithm.begin_phase`."""
        self._say("phase", **{"with": {"learning_rate": learning_rate, "decay_over": decay_over}})
        self.algorithm.begin_phase(learning_rate, decay_over)

    def update(self, *, online: bool) -> Drawn:
        """One gradient step; `online` ones are charged to what the fleet has brought.

        Raises:
            ValueError: there is nothing to draw.
        """
        self._say("update", **{"with": {"online": online}})
        wanted = self.sampler.online_shares()
        shares = self._buffer.shares(wanted)
        batch = self._buffer.sample(self.random, wanted, self._task_weights)
        metrics = self.algorithm.update(batch)
        losses = self._grouped(batch, metrics.losses)
        if not metrics.skipped:  # what taught nothing says nothing of how well a source is learned
            self.sampler.observe(losses)
        self.learner_step += 1
        self.online_updates += online
        return Drawn(losses, shares, metrics.skipped, metrics.named)

    def take_draws(self) -> tuple[EpisodeDraws, ...]:
        """Which episodes were drawn from since the last call, and how often."""
        return self.draws.take()

    def updates_allowed(self) -> int:
        """Online updates that the fleet's steps so far still allow, so that a quiet fleet is not overfitted.

        None once labels have excluded all there was to draw.
        """
        if not self.trainable:
            return 0
        return max(0, int(self.online_steps * self._updates_per_online_step) - self.online_updates)

    def artifact(self) -> bytes:
        """The policy to publish; the same weights give the same bytes."""
        return pack(self.spec, self.algorithm.weights())

    def require_agreement(self) -> None:
        """Have all ranks compare their policies.

        Raises:
            RanksDisagree: they are not the same, bit for bit.
        """
        if self.team.alone:
            return
        self._say("agree", **{"with": {}})
        sha256 = sha256_hex(self.artifact())
        found = [digest.decode() for digest in self.team.all(sha256.encode())]
        if set(found) != {sha256}:
            raise RanksDisagree(f"after {self.learner_step} updates the ranks' policies are {', '.join(found)}")
        _log.info("ranks_agree", rank=self.team.rank, learner_step=self.learner_step, sha256=sha256)

    def snapshot(self) -> tuple[dict[str, Any], Arrays]:
        """JSON document and tensors from which `restore` continues bit for bit, once the episodes are refilled."""
        names, columns = self.episodes.dump()
        document = {
            "spec": self.spec.model_dump(mode="json"),
            "learner_step": self.learner_step,
            "online_updates": self.online_updates,
            "online_steps": self.online_steps,
            "paid": dict(self._paid),
            "learning_rate": self.settings.learning_rate,
            "selected_by": deciding(self.settings),
            "random": self.random.bit_generator.state,
            "sampler": self.sampler.state(),
            "index": names,
        }
        return document, {**self.algorithm.state(), **{COLUMN + name: rows for name, rows in columns.items()}}

    @classmethod
    def restore(
        cls,
        settings: LearnerSettings,
        document: dict[str, Any],
        tensors: Arrays,
        *,
        room: Room | None = None,
        team: Team = ALONE,
    ) -> TrainingCore:
        """The core of a snapshot, with an empty buffer: `refill` it with `episodes.to_refill()`, in their order.

        Where `settings` are others than the snapshot was trained with, they count from here on; if they may select
        other frames, all that is held is to be refilled.

        Raises:
            InvalidArtifact: the tensors are another policy's.
        """
        columns = {name.removeprefix(COLUMN): rows for name, rows in tensors.items() if name.startswith(COLUMN)}
        index = EpisodeIndex.load(document["index"], columns)
        if document.get("selected_by") != deciding(settings):  # earlier checkpoints do not say
            index.forget_unselected()
        core = cls(settings, PolicySpec.model_validate(document["spec"]), room=room, index=index, team=team)
        core.algorithm.load_state(tensors)
        if document.get("learning_rate") != settings.learning_rate:  # earlier checkpoints do not say
            core.algorithm.go_on_at(settings.learning_rate)
        core.learner_step = document["learner_step"]
        core.online_updates = document["online_updates"]
        core.online_steps = document["online_steps"]
        core._paid = dict(document.get("paid", {}))  # earlier checkpoints do not say
        core.random.bit_generator.state = document["random"]
        core.sampler.load_state(document["sampler"])
        core.tell()
        return core

    def tell(self) -> None:
        """Have the other ranks be where this one is, without frames; they are admitted again, or refilled."""
        self._say("be", settings=self.settings.model_dump(mode="json"))
        if self._speaks:
            self.team.tell(pack_json(*self.snapshot()))

    def say_nothing(self) -> None:
        """Let the other ranks hear that the first one lives."""
        self._say("nothing")

    @property
    def _speaks(self) -> bool:
        return self.team.leads and not self.team.alone

    def _say(self, do: str, **facts: Any) -> None:
        if self._speaks:
            self.team.tell(json.dumps({"do": do, **facts}).encode())

    def _grouped(self, batch: Batch, losses: Floats) -> GroupLosses:
        """Losses by task and source, of the samples of all ranks."""
        tasks = len(self.spec.tasks)
        if self.team.ranks == 1:
            return GroupLosses.of(batch.tasks, batch.online, losses, task_count=tasks)
        whole = self._buffer.whole
        drawn = GroupLosses.of(whole.tasks, whole.online, np.zeros(len(whole), np.float32), task_count=tasks)
        parts = []
        for rank in self.team.mine:
            mine = batch.ranks == rank
            found = GroupLosses.of(batch.tasks[mine], batch.online[mine], losses[mine], task_count=tasks)
            parts.append(found.sums)
        return GroupLosses(drawn.draws, self.team.add(parts))

    def _require_admissible(self, record: EpisodeRecord) -> None:
        self.spec.task_index(record.task)
        if record.source is EpisodeSource.EVALUATION:
            raise ValueError(f"episode {record.episode_id} is an evaluation: never trained on")
        known = self.episodes.get(record.episode_id)
        if known is not None and known.revision > record.revision:
            raise ValueError(f"episode {record.episode_id} is known in revision {known.revision}")

    def _fill(self, episode: Episode) -> None:
        record = episode.record

        def enter() -> bytes:
            count = self._buffer.add(episode, self.algorithm.select(episode))
            return count.to_bytes(8, "little") + self.algorithm.known_of(record.episode_id)

        told = self.team.share(record.episode_id, enter)
        if not self.team.has(record.episode_id):
            self._buffer.add_elsewhere(record, int.from_bytes(told[:8], "little"))
            self.algorithm.hear_of(record, told[8:])
        row = self.episodes.row(record.episode_id)
        if row is not None:
            # What an algorithm knows of an episode besides, it must learn again even if nothing of it is drawn.
            self.episodes.note_unselected(row, unselected=told == _NOTHING)
        for episode_id in self._buffer.overflow():
            self.algorithm.forget(episode_id)


def make_sampler(settings: LearnerSettings, spec: PolicySpec) -> Sampler:
    """The mixing that the settings name."""
    if settings.mixing == "fixed":
        return FixedMixing(len(spec.tasks), settings.online_share)
    return AdaptiveMixing(
        len(spec.tasks),
        alpha=settings.adaptive_alpha,
        window=settings.adaptive_window,
        floor=settings.adaptive_clip[0],
        ceiling=settings.adaptive_clip[1],
        start=settings.online_share,
        normalise=settings.adaptive_normalise,
    )


def task_weights(settings: LearnerSettings, spec: PolicySpec) -> npt.NDArray[np.float64] | None:
    """Weights of the policy's tasks, 1 for those that the settings do not name; None when all are alike."""
    if not settings.task_weights:
        return None
    return np.array([settings.task_weights.get(task, 1.0) for task in spec.tasks])
