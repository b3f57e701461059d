"""One policy line at work: the core together with its stream, checkpoints and announcements."""

from __future__ import annotations

import itertools
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
from infra.policies.keys import signing_key
from infra.registry import Registry
from infra.settings import Settings
from learner.algorithms.base import Fitting, unheard
from learner.checkpoint import Announced, Checkpoint, CheckpointStore, choose
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import CheckpointMissing
from learner.gathering import Gathered, beginnings, with_steps
from learner.halfway import Halfway
from learner.intake import Intake, Seen
from learner.journal import Entry, Journal, Segment
from learner.kept import keep_all
from learner.line_spec import sees
from learner.machine import fingerprint
from learner.patience import Patience
from learner.progress import ProgressReporter
from learner.publisher import Publisher
from learner.ranks import make_fetcher, make_room
from learner.rereading import readable, reread
from learner.rerun import apply, begin
from learner.restoring import Rollbacks
from learner.resume import Way, from_the_beginning, resume
from learner.set_aside import SetAside
from learner.stream import Announcements, EventStream
from learner.team import ALONE, Team
from schemas.events import EpisodeMaterialized, Event, PolicyVersion
from schemas.topics import TRAINING_EPISODES

_REPORTS_PER_VERSION = 4
# A look at the rollouts costs a connection; a rollback may take so long to be heard while nothing is published.
_LOOK_SECONDS = 5.0

E = TypeVar("E", bound=Event)

_log = structlog.get_logger(__name__)


class Line:
    """Everything that `learner.train` does to a policy line, in its words.

    Raises (all methods):
        Stopped: a stop was asked for.
        InfraError: what waiting does not mend (ProducerFenced, OffsetsExpired).
    """

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event,
        clock: Clock,
        health: Health,
        *,
        announcements: Announcements | None = None,
        team: Team = ALONE,
        without_lost: bool = False,
    ) -> None:
        """Connect; nothing is read or written before `take_over`.

        `announcements`: else training-episodes. `team`: whose first rank this is. `without_lost`: go on however
        many admitted episodes can no longer be read.

        Raises:
            SettingMissing, KeyUnusable: there is no key to sign versions with.
        """
        # Where curves lie decides about nothing that is trained, and is nobody's business who reads a version.
        self.settings = settings.learner.model_copy(update={"tensorboard": None})
        self.clock = clock
        self.newest: PolicyVersion | None = None
        self.published_step = 0
        self.simulated_seconds: float | None = None
        self._parent: int | None = None
        self._published: dict[int, Announced] = {}
        self._team = team
        self._without_lost = without_lost
        self._core: TrainingCore | None = None
        self._tail: list[Entry] = []
        self._patience = Patience(stop, health)
        self._store = ObjectStore(settings.s3)
        registry, policy = Registry(settings.registry), self.settings.policy
        self._checkpoints = CheckpointStore(
            self._store, policy, self._patience, keep=self.settings.checkpoints_kept
        )
        self._journal = Journal(self._store, policy, self._patience)
        self._rollbacks = Rollbacks(settings, self._store, policy, self._patience)
        self.halfway = Halfway(self._store, policy, self._patience)
        self._looked_at = float("-inf")
        with ExitStack() as opened:
            key = signing_key(settings.policies)
            self._publisher = Publisher(settings.kafka, registry, self._store, policy, self._patience, key=key)
            self._progress = ProgressReporter(
                settings.kafka, registry, policy, self._patience, clock, curves=settings.learner.tensorboard
            )
            opened.callback(self._progress.close)
            if announcements is None:
                announcements = stream = EventStream(
                    settings.kafka, registry, TRAINING_EPISODES, EpisodeMaterialized, self._patience
                )
                opened.callback(stream.close)
            self.room = make_room(settings, self._patience)
            payloads = make_fetcher(settings, self._store, self._patience, team)
            opened.callback(payloads.close)
            self.intake = Intake(announcements, payloads, clock)
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
        """Fence any other learner of the line, and be where its newest version was published, if there is one.

        `catch_up` must follow.

        Raises:
            CheckpointMissing: versions were published, and there is nothing to go on from.
            OtherAlgorithm: the line was trained with another algorithm than the settings name.
            VersionsLost: versions were published, and their announcements are gone.
            EpisodesLost: much of what was admitted cannot be read, and nobody said to go on without.
        """
        published = self._publisher.take_over()
        newest = max(published, default=0)
        self.newest = published.get(newest)
        self._checkpoints.require_announced(newest, self._journal.newest())
        past = self._rollbacks.past(published)
        self._published = {number: Announced.of(version) for number, version in published.items()}
        payloads = self.intake.payloads
        way = Way(
            self.settings, past, self._journal, payloads, self.room, self._team, self.keep_on, self._without_lost
        )
        checkpoints = self._checkpoints.newest_first(newest if self._rollbacks.ordered else None)
        try:
            checkpoint = choose(checkpoints, past, newest + 1)
        except CheckpointMissing as missing:
            resumed = from_the_beginning(way, missing)
        else:
            if checkpoint is None:
                self._take_up_beginning()
                return
            announcement = checkpoint.announcement
            if self.newest is None or announcement.version > self.newest.version:
                self._announce(announcement)
                past[announcement.version] = announcement
            resumed = resume(way, checkpoint)
        self._rollbacks.obey(resumed.at.version, self._give_up)
        self._core, self._parent = resumed.core, resumed.at.version
        self.published_step = resumed.at.learner_step
        self.simulated_seconds = (self.newest or resumed.at).simulated_seconds
        _log.info("learner_resumes", version=self._parent, learner_step=resumed.core.learner_step)
        self._tail = resumed.tail(self._journal)
        counted = self.settings.simulated_interval is not None
        self._begin_intake(resumed.positions(all_are_counted=counted), resumed.set_aside)

    def catch_up(self) -> None:
        """Take up what the last learner had decided after the newest version, at the same steps."""
        done = []
        for entry in self._tail:
            while self.core.trainable and self.core.learner_step < entry.learner_step:
                self.update(online=True)
            # Where all payloads are gone there is nothing to draw until the next ones are admitted.
            entry = entry.model_copy(update={"learner_step": self.core.learner_step})  # noqa: PLW2901
            if entry.beginning is None:  # a beginning was taken up already: there was no core before
                entry = self._take_up(entry)  # noqa: PLW2901
            for decision in entry.admitted:
                self._progress.note_admission(decision.record, decision.seen_at)
            done.append(entry)
        self._tail = []
        self._journal.take_over(self._parent or 0, self._publisher.claim, tuple(done))

    def start(self, gathered: Gathered, fitting: Fitting = unheard) -> bool:
        """Begin with a new policy for these demonstrations; False if they do not suffice.

        A line is for one kind of robot: the one that most demonstrations show, of equals the first, if there are
        `pretrain_episodes` of it that have steps, something in them to learn from, and the cameras that the policy
        is to see. Those of other kinds are set aside. `fitting` hears of the algorithm's preparation.
        """
        kinds = gathered.by_kind(self.settings.cameras, self.intake.excluded)
        for ours, beginning in beginnings(kinds, self.settings):
            core = begin(self.settings, beginning, gathered.episodes(ours), self.room, self._team, fitting=fitting)
            if not core.trainable:
                core.close()
                continue
            admitted = tuple(seen.decision() for seen in ours)
            self._journal.append(Entry(learner_step=0, admitted=admitted, beginning=beginning))
            self._core = core
            self.intake.require(core.require_admissible)
            for seen in (seen for others in kinds if others is not ours for seen in others):
                self.intake.wanted(seen)  # set aside, with the reason
            self.intake.payloads.whole = False
            for seen in ours:
                self._progress.note_admission(seen.record, seen.seen_at)
            return True
        _log.warning(
            "demonstrations_do_not_suffice",
            wanted=self.settings.pretrain_episodes,
            of_each_kind=[with_steps(members) for members in kinds],
            cameras=self.settings.cameras,
        )
        return False

    def go_on_halfway(self) -> None:
        """If the first version's training was interrupted, be where it was."""
        self._core = self.halfway.resume(self.core, self.intake.payloads)

    def admit(self, episodes: Iterable[Seen]) -> None:
        """Make episodes available to training, in this order; bad ones and those that do not fit are set aside.

        Episodes that labels exclude are forgotten first. The journal says so before it is done.
        """
        taken: list[tuple[Seen, Episode]] = []
        set_aside = self.intake.leave_out()
        forgotten = tuple(s.record.episode_id for s in set_aside if s.record.episode_id in self.core.episodes)
        for seen, episode in self.intake.take_each(episodes):
            if episode is not None and self.intake.passes(seen, episode, self.core.require_plausible):
                taken.append((seen, episode))
            else:
                set_aside.append(seen)
        if not taken and not set_aside:
            return
        entry = Entry(
            learner_step=self.core.learner_step,
            admitted=tuple(seen.decision() for seen, _ in taken),
            set_aside=tuple(seen.decision() for seen in set_aside),
            forgotten=forgotten,
        )
        self._journal.append(entry)
        apply(self.core, entry, [episode for _, episode in taken])
        for seen, _ in taken:
            self._progress.note_admission(seen.record, seen.seen_at)

    def update(self, *, online: bool) -> None:
        """One gradient step, told to training-progress a few times between versions."""
        self._patience.check()
        self._progress.note_update(self.core.update(online=online))
        if self.core.learner_step % max(1, self.settings.publish_every // _REPORTS_PER_VERSION) == 0:
            self.report()

    def look_for_rollback(self) -> None:
        """Now and then, ask whether the line was rolled back.

        Raises:
            RolledBack: it was; this line's work is given up.
        """
        now = self.clock.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self.core.say_nothing()
            self._rollbacks.check()

    def keep_on(self) -> None:
        """Go on, and let ranks that wait for a word hear one now and then."""
        self._patience.check()
        self._team.say_alive(self.clock.monotonic())

    def pause(self, seconds: float) -> None:
        """Wait."""
        self._patience.pause(seconds)

    def report(self, *, settle: bool = False) -> None:
        """Tell training-progress what happened since it was last told; `settle`: wait until Kafka has it."""
        tell = self._progress.settle if settle else self._progress.report
        tell(self.core, self.intake.positions(), self.simulated_seconds)

    def publish(self) -> None:
        """Store artifact and checkpoint, then announce the next version: a crash in between loses none of them."""
        needed = self._rollbacks.check()
        core, policy = self.core, self.settings.policy
        core.require_agreement()
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
        self._publisher.require_youngest()
        # Before the version is sealed: who resumes draws the same again, and tells the same again. Once it is
        # announced nobody does.
        self.report(settle=True)
        self._progress.tell_lineage(version, core.take_draws())
        self._journal.seal(
            Segment(
                policy=policy,
                version=version,
                parent=self._parent,
                sha256=sha256,
                learner_step=core.learner_step,
                config=announcement.config,
                machine=fingerprint(seeing=bool(core.spec.cameras)),
                entries=self._journal.entries,
                ranks=self._team.ranks,
            )
        )
        checkpointed = self.newest is None or version % self.settings.checkpoint_every == 0
        if checkpointed:
            document, tensors = core.snapshot()
            self._checkpoints.save(Checkpoint(announcement, document, tensors, self.intake.set_aside))
        self._announce(announcement)
        self._parent, self.published_step = version, core.learner_step
        self._journal.turn(version)
        if checkpointed:
            self._checkpoints.prune(self._published, needed)

    def _give_up(self, version: int, newest: int) -> None:
        self._checkpoints.give_up(newest)
        self._journal.drop(version)

    def _announce(self, announcement: PolicyVersion) -> None:
        self._publisher.announce(announcement)
        self.newest = announcement
        self._published[announcement.version] = Announced.of(announcement)

    def _take_up_beginning(self) -> None:
        """Nothing is published yet: begin as the last learner had begun, if it had."""
        self.intake.payloads.whole = True
        self._tail = list(self._journal.readable_tail(0))
        beginning = self._tail[0].beginning if self._tail else None
        if beginning is not None and sees(beginning.features, self.settings.cameras):
            admitted = self._tail[0].admitted
            found = readable(self.intake.payloads, (decision.record for decision in admitted))
            if len(ours := keep_all(found, self.room)) == len(admitted):
                go_on = lambda *_: self.pause(0.0)  # noqa: E731
                self._core = begin(self.settings, beginning, ours, self.room, self._team, fitting=go_on)
        if self._core is not None:
            self.intake.payloads.whole = False
        else:
            self._tail = []  # what could be read comes again from the stream
        self._begin_intake(None, SetAside())

    def _begin_intake(self, positions: dict[int, int] | None, set_aside: SetAside) -> None:
        known = self._core.episodes.values() if self._core else ()
        decided = (decision.record for entry in self._tail for decision in entry.admitted)
        for entry in self._tail:
            for decision in entry.set_aside:
                set_aside.put(decision.record)
        self.intake.start(positions, itertools.chain(known, decided), set_aside)
        if self._core is not None:
            self.intake.require(self._core.require_admissible)

    def _take_up(self, entry: Entry) -> Entry:
        """Do what the last learner had decided; what can no longer be read is set aside."""
        done, episodes, lost = reread(self.intake.payloads, entry)
        for record in lost:
            self.intake.set_aside.put(record)
        apply(self.core, done, episodes)
        return done
