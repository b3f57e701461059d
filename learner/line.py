"""One policy line at work: the core together with its stream, checkpoints and announcements."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version as package_version
from types import TracebackType
from typing import Self, TypeVar

import structlog

from infra.clock import Clock
from infra.health import Health
from infra.object_store import ObjectStore, sha256_hex
from infra.registry import Registry
from infra.settings import Settings
from learner.checkpoint import Checkpoint, CheckpointStore, choose
from learner.core import TrainingCore, base_spec, kind_of
from learner.episodes import Episode
from learner.errors import BadPayload, LearnerError
from learner.intake import Intake, Seen
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.progress import ProgressReporter
from learner.publisher import Publisher
from learner.stream import EventStream
from schemas.events import EpisodeMaterialized, Event, PolicyVersion
from schemas.topics import TRAINING_EPISODES

_REPORTS_PER_VERSION = 4

E = TypeVar("E", bound=Event)

_log = structlog.get_logger(__name__)


class Line:
    """Everything that `learner.train` does to a policy line, in its words.

    Raises (all methods):
        Stopped: a stop was asked for.
        InfraError: what waiting does not mend (ProducerFenced, OffsetsExpired).
    """

    def __init__(self, settings: Settings, stop: threading.Event, clock: Clock, health: Health) -> None:
        """Connect; nothing is read or written before `take_over`."""
        self.settings = settings.learner
        self.clock = clock
        self.newest: PolicyVersion | None = None
        self.simulated_seconds: float | None = None
        self._parent: int | None = None
        self._core: TrainingCore | None = None
        self._patience = Patience(stop, health)
        self._store = ObjectStore(settings.s3)
        registry, policy = Registry(settings.registry), self.settings.policy
        self._checkpoints = CheckpointStore(
            self._store, policy, self._patience, keep=self.settings.checkpoints_kept
        )
        with ExitStack() as opened:
            self._publisher = Publisher(settings.kafka, registry, self._store, policy, self._patience)
            self._progress = ProgressReporter(settings.kafka, registry, policy, self._patience, clock)
            opened.callback(self._progress.close)
            stream = EventStream(settings.kafka, registry, TRAINING_EPISODES, EpisodeMaterialized, self._patience)
            opened.callback(stream.close)
            payloads = PayloadFetcher(self._store, self._patience)
            opened.callback(payloads.close)
            self.intake = Intake(stream, payloads, clock)
            self._opened = opened.pop_all()
        self._registry, self._kafka = registry, settings.kafka

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def started(self) -> bool:
        """Whether there is a policy in training."""
        return self._core is not None

    @property
    def core(self) -> TrainingCore:
        """The policy in training; only once the line is started."""
        if self._core is None:
            raise RuntimeError("the line has no policy yet")
        return self._core

    def follow(self, topic: str, event_type: type[E]) -> EventStream[E]:
        """Another topic from its beginning, closed with the line."""
        stream = EventStream(self._kafka, self._registry, topic, event_type, self._patience)
        self._opened.callback(stream.close)
        stream.seek()
        return stream

    def take_over(self) -> None:
        """Fence any other learner of the line, and go on where the newest version was published, if there is one.

        Raises:
            CheckpointMissing: versions were published, and there is nothing to go on from.
        """
        published = self._publisher.take_over()
        self.newest = published[max(published)] if published else None
        checkpoint = choose(self._checkpoints.newest_first(), published)
        if checkpoint is None:
            self.intake.start()
            return
        announcement = checkpoint.announcement
        if self.newest is None or announcement.version > self.newest.version:
            self._publisher.announce(announcement)
            self.newest = announcement
        self._parent, self.simulated_seconds = announcement.version, self.newest.simulated_seconds
        core = TrainingCore.restore(self.settings, checkpoint.core, checkpoint.tensors)
        _log.info("learner_resumes", version=announcement.version, learner_step=core.learner_step)
        lost = []
        for record, episode in self.intake.payloads.take_all(list(core.episodes.values())):
            if isinstance(episode, BadPayload):
                _log.error("episode_lost", episode_id=record.episode_id, reason=str(episode))
                core.forget(record.episode_id)
                lost.append(record)
            else:
                core.refill(episode)
        self.intake.start(checkpoint.positions, core.episodes.values(), (*checkpoint.set_aside, *lost))
        self._core = core

    def start(self, demonstrations: list[tuple[Seen, Episode]]) -> bool:
        """Begin with a new policy for these demonstrations; False if they do not suffice.

        A line is for one kind of robot: the one that most demonstrations show, of equals the first, if there are
        `pretrain_episodes` of it and something in them to learn from. Those of other kinds are set aside.
        """
        kinds: dict[object, list[tuple[Seen, Episode]]] = {}
        for seen, episode in demonstrations:
            kinds.setdefault(kind_of(seen.event), []).append((seen, episode))
        for ours in sorted(kinds.values(), key=len, reverse=True):
            if len(ours) < self.settings.pretrain_episodes:
                break
            spec = base_spec(self.settings, ours[0][0].event, [episode for _, episode in ours])
            core = TrainingCore(self.settings, spec)
            core.prepare([episode for _, episode in ours])
            fitting = [seen for seen, episode in ours if self._put(core, seen, episode)]
            if not core.trainable:
                continue
            for others in kinds.values():
                if others is not ours:
                    for seen, episode in others:
                        self._put(core, seen, episode)  # refused, with the reason
            self._core = core
            for seen in fitting:
                self._progress.note_admission(seen)
            return True
        _log.warning(
            "demonstrations_do_not_suffice",
            wanted=self.settings.pretrain_episodes,
            of_each_kind=[len(members) for members in kinds.values()],
        )
        return False

    def admit(self, episodes: Iterable[Seen]) -> None:
        """Make episodes available to training, in this order; bad ones and those that do not fit are set aside."""
        for seen in episodes:
            episode = self.intake.take(seen)
            if episode is not None and self._put(self.core, seen, episode):
                self._progress.note_admission(seen)

    def update(self, *, online: bool) -> None:
        """One gradient step, told to training-progress a few times between versions."""
        self._patience.check()
        self._progress.note_update(self.core.update(online=online))
        if self.core.learner_step % max(1, self.settings.publish_every // _REPORTS_PER_VERSION) == 0:
            self.report()

    def report(self) -> None:
        """Tell training-progress what happened since it was last told."""
        self._progress.report(self.core, self.intake.positions(), self.simulated_seconds)

    def publish(self) -> None:
        """Store artifact and checkpoint, then announce the next version: a crash in between loses none of them."""
        core, policy = self.core, self.settings.policy
        data = core.artifact()
        sha256 = sha256_hex(data)
        version = self.newest.version + 1 if self.newest else 1
        key = f"policies/{policy}/{version}-{sha256}.safetensors"
        announcement = PolicyVersion(
            policy=policy,
            version=version,
            artifact_uri=self._patience.call("object store", lambda: self._store.put(key, data)),
            sha256=sha256,
            size_bytes=len(data),
            parent_version=self._parent,
            algorithm=core.algorithm.name,
            learner_step=core.learner_step,
            episodes_admitted=len(core.episodes),
            offsets=self.intake.positions(),
            config=self.settings.model_dump_json(),
            code_version=package_version("sop"),
            published_at=self.clock.now(),
            simulated_seconds=self.simulated_seconds,
        )
        document, tensors = core.snapshot()
        self._checkpoints.save(Checkpoint(announcement, document, tensors, tuple(self.intake.set_aside.values())))
        self._publisher.announce(announcement)
        self.newest, self._parent = announcement, version
        self.report()
        self._checkpoints.prune()

    def _put(self, core: TrainingCore, seen: Seen, episode: Episode) -> bool:
        try:
            core.spec.require_fit(seen.event.features, seen.event.fps)
            core.admit(episode)
        except LearnerError as error:
            self.intake.reject(seen, error)
            return False
        return True
