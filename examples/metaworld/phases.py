"""What a simulated robot does, in order: demonstrations, evaluation of the base, online, evaluation of the last.

Simulated time: the clock moves by what was played, not by the wall. At each multiple of the publish interval the
robot holds still, says so, and goes on with that interval's policy; a slow machine changes nothing else.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

from examples.metaworld import ledger as entries
from examples.metaworld.expert import Expert
from examples.metaworld.ledger import Ledger
from examples.metaworld.play import FEATURES, Autonomous, Outcome, Pilot, Supervised, demonstrating, play
from examples.metaworld.settings import FleetSettings
from examples.metaworld.tasks import Task
from examples.metaworld.world import UNDISTURBED, Disturbance, World
from infra.clock import Clock
from learner.policies import Inference, Policy, load_policy
from producers.policy_inbox import PolicyInbox
from producers.policy_store import PolicyFile
from producers.policy_swap import swap
from producers.robot import RobotClient
from schemas.events import EpisodeSource, PolicyVersion

# An expert fails about one undisturbed layout in a hundred; more in a row means that something else is wrong.
_ATTEMPTS = 10
# Wall seconds between two looks at the inbox while the robot waits; each look is a heartbeat.
_LOOK_SECONDS = 1.0

WAITING = "waiting"
"""What a robot notes while it holds still for a policy version."""


class Phase(StrEnum):
    """A part of a robot's work."""

    DEMONSTRATIONS = "demonstrations"
    EVALUATE_BASE = "evaluate-base"
    ONLINE = "online"
    EVALUATE_LAST = "evaluate-last"


class Stopped(Exception):
    """The robot was told to stop."""


class NoPolicy(Exception):
    """The version that the robot waits for did not come in time."""


@dataclass(frozen=True, slots=True)
class Berth:
    """A robot's place in the fleet: `index` of `robots`, from 0. `seed` is the whole fleet's."""

    index: int
    robots: int
    seed: int

    def share(self, count: int) -> range:
        """This robot's part of `count` numbered things; the robots' parts together are all of them."""
        return range(self.index, count, self.robots)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A version, to be asked at work and to be judged; they differ in guidance only."""

    at_work: Policy
    judged: Policy


class SimulatedRobot:
    """One robot: its worlds, its policy, and where it tells what it does."""

    def __init__(
        self,
        settings: FleetSettings,
        berth: Berth,
        *,
        client: RobotClient,
        inbox: PolicyInbox,
        ledger: Ledger,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        """It plays once one of its parts is asked for."""
        self._settings = settings
        self._berth = berth
        self._client = client
        self._inbox = inbox
        self._ledger = ledger
        self._clock = clock
        self._stop = stop
        self._patience = settings.patience
        self._worlds: dict[tuple[str, int, Disturbance], tuple[World, Expert]] = {}
        self._policy: _Loaded | None = None

    def run(self, phase: Phase) -> None:
        """Do one part of the work.

        Raises:
            Stopped: the robot was told to stop; what was recorded is recorded.
            NoPolicy: a version did not come in time.
            RobotClientError: an event could not be recorded.
        """
        last = self._settings.intervals * self._settings.interval_seconds
        match phase:
            case Phase.DEMONSTRATIONS:
                self._demonstrate()
            case Phase.EVALUATE_BASE:
                self._wait_for_version(0.0)
                self._evaluate(phase)
            case Phase.ONLINE:
                self._wait_for_version(0.0)
                self._go_online()
            case Phase.EVALUATE_LAST:
                self._wait_for_version(last)
                self._evaluate(phase)

    def judge(self, file: PolicyFile) -> None:
        """Play the fixed set with this version.

        Raises:
            Stopped: the robot was told to stop.
            RobotClientError: an event could not be recorded.
            InvalidArtifact: the file is no policy of ours.
        """
        policy = self._load(file.read())
        self._client.activate(file)
        self._policy = policy
        self._ledger.write(entries.Activated(at=self._clock.now(), version=file.version))
        self._evaluate(Phase.EVALUATE_LAST)

    def _demonstrate(self) -> None:
        self._note(Phase.DEMONSTRATIONS)
        each = self._settings.demonstrations_per_task
        for number in self._berth.share(each * len(self._settings.tasks)):
            task = self._settings.tasks[number // each]
            world, expert = self._world(task, 1000 + self._berth.seed, UNDISTURBED)
            for attempt in range(_ATTEMPTS):
                layout = number % each + attempt * each
                if self._episode(world, layout, demonstrating(expert), EpisodeSource.DEMONSTRATION, None).success:
                    break

    def _evaluate(self, phase: Phase) -> None:
        self._note(phase)
        each = self._settings.evaluations_per_task
        for number in self._berth.share(self._settings.evaluation_episodes):
            task = self._settings.tasks[number // each]
            world, _ = self._world(task, self._settings.evaluation_seed, self._settings.disturbance)
            pilot = Autonomous(self._require_policy().judged, task.name)
            self._episode(world, number % each, pilot, EpisodeSource.EVALUATION, None)

    def _go_online(self) -> None:
        self._note(Phase.ONLINE)
        settings, berth = self._settings, self._berth
        seconds, interval, played = 0.0, 1, 0
        while interval <= settings.intervals:
            task = settings.tasks[(berth.index + played) % len(settings.tasks)]
            world, expert = self._world(task, 10_000 * berth.seed + berth.index, settings.disturbance)
            pilot = Supervised(world, expert, self._require_policy().at_work, settings.rule)
            seconds = self._online_episode(world, played, pilot, seconds)
            played += 1
            self._client.heartbeat(simulated_seconds=seconds)
            if seconds >= interval * settings.interval_seconds:
                interval = int(seconds // settings.interval_seconds)
                self._wait_for_version(interval * settings.interval_seconds, at=seconds)
                interval += 1

    def _online_episode(self, world: World, layout: int, pilot: Pilot, seconds: float) -> float:
        """Play one episode that begins at `seconds`; simulated seconds once its objects are put back."""
        outcome = self._episode(world, layout, pilot, EpisodeSource.ONLINE, seconds)
        return seconds + outcome.steps * self._settings.step_seconds + self._settings.reset_seconds

    def _episode(
        self, world: World, layout: int, pilot: Pilot, source: EpisodeSource, began: float | None
    ) -> Outcome:
        if self._stop.is_set():
            raise Stopped
        task = world.task
        recording = self._client.episode(
            task=task.name,
            instruction=task.instruction,
            features=FEATURES,
            source=source,
            fps=1.0 / self._settings.step_seconds,
            embodiment="metaworld-sawyer",
            max_steps=task.max_steps,
        )
        with recording as episode:
            self._ledger.write(
                entries.Started(at=self._clock.now(), episode_id=episode.episode_id, task=task.name, source=source)
            )
            outcome = play(world, layout, pilot, episode)
            ended = None if began is None else began + outcome.steps * self._settings.step_seconds
            episode.end(
                success=outcome.success,
                terminated=True,  # by the task, or by the supervisor, who gives up and so judges it to have failed
                final_state=outcome.final_state,
                simulated_at=ended,
            )
        active = self._client.active_policy
        self._ledger.write(
            entries.Ended(
                at=self._clock.now(),
                episode_id=episode.episode_id,
                task=task.name,
                source=source,
                policy_version=active.version if active and source is not EpisodeSource.DEMONSTRATION else 0,
                steps=outcome.steps,
                human_steps=outcome.human_steps,
                interventions=outcome.interventions,
                success=outcome.success,
                simulated_at=ended,
                layout=layout,
            )
        )
        return outcome

    def _wait_for_version(self, simulated_seconds: float, at: float | None = None) -> None:
        """Hold still, saying so, until the version of that simulated time is here; activate it."""

        def due(version: PolicyVersion) -> bool:
            return (version.simulated_seconds or 0.0) >= simulated_seconds

        until = self._clock.monotonic() + self._patience
        self._note(WAITING)
        while True:
            self._client.heartbeat(simulated_seconds=at, waiting=True)
            if self._inbox.wait_for(due, _LOOK_SECONDS) is not None:
                self._swap()
            active = self._client.active_policy
            if active is not None and due(active.announcement):
                break
            if self._stop.is_set():
                raise Stopped
            if self._clock.monotonic() > until:
                raise NoPolicy(
                    f"no version of {self._inbox.policy} for simulated second {simulated_seconds:.0f} came within "
                    f"{self._patience:.0f} s; is `sop learn` running? {'; '.join(self._inbox.errors())}"
                )
        self._client.heartbeat(simulated_seconds=at)
        if at is not None:
            self._note(Phase.ONLINE)

    def _swap(self) -> None:
        """Run what the inbox holds; what cannot be loaded is refused there, and told."""
        policy = swap(self._client, self._inbox, self._load)
        if policy is not None and (active := self._client.active_policy) is not None:
            self._policy = policy
            self._ledger.write(entries.Activated(at=self._clock.now(), version=active.version))

    def _load(self, data: bytes) -> _Loaded:
        """Raise InvalidArtifact if the bytes are no policy of ours."""
        at_work = load_policy(data, Inference(guidance=self._settings.guidance))
        return _Loaded(at_work, load_policy(data, Inference(guidance=self._settings.judged_guidance)))

    def _require_policy(self) -> _Loaded:
        if self._policy is None:
            raise NoPolicy("no policy was activated")
        return self._policy

    def _note(self, phase: str) -> None:
        self._ledger.write(entries.PhaseBegan(at=self._clock.now(), phase=phase))

    def _world(self, task: Task, seed: int, disturbance: Disturbance) -> tuple[World, Expert]:
        key = (task.name, seed, disturbance)
        if key not in self._worlds:  # a world takes 0.15 s to make
            world = World(task, seed, disturbance)
            self._worlds[key] = (world, Expert(world))
        return self._worlds[key]
