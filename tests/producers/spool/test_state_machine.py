"""Append, send, acknowledge, refuse, crash and reopen, in any interleaving."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from infra.clock import ManualClock
from producers.episode import InterventionRecording
from schemas.events import RobotEvent
from schemas.topics import ROBOT_EPISODES, ROBOT_INTERVENTIONS, ROBOT_STEPS
from tests.producers.fakes import MEMORY
from tests.producers.spool.parts import Broker, Robot, check_episodes, drain, publisher, turns

ROBOT_TOPICS = (ROBOT_STEPS, ROBOT_INTERVENTIONS, ROBOT_EPISODES)


class SpoolMachine(RuleBasedStateMachine):
    """A robot that records and crashes, and a publisher that does too."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="spool-machine-", dir=MEMORY))
        self.clock = ManualClock()
        self.broker = Broker()
        self.epochs = itertools.count(100)
        self.folders = itertools.count(1)
        self.path = self.root / "0"
        self.robot = self.boot()
        self.publisher = publisher(self.path, self.broker, self.clock)
        self.intervention: InterventionRecording | None = None
        self.recorded: list[tuple[int, int]] = []
        """Epoch of each boot, and how many events it recorded itself."""
        self.open_at_crash: set[str] = set()

    def boot(self) -> Robot:
        return Robot.boot(self.path, next(self.epochs), self.clock)

    def remember(self) -> None:
        self.recorded.append((self.robot.log.boot_epoch, self.robot.log.next_sequence))
        if self.robot.episode is not None and self.robot.episode.ended is None:
            self.open_at_crash.add(self.robot.episode.episode_id)
        self.intervention = None

    @property
    def is_open(self) -> bool:
        return self.robot.episode is not None and self.robot.episode.ended is None

    @precondition(lambda self: not self.is_open)
    @rule()
    def begin(self) -> None:
        self.robot.begin()

    @precondition(lambda self: self.is_open)
    @rule(count=st.integers(1, 40))
    def step(self, count: int) -> None:
        self.clock.advance(0.1)
        self.robot.steps(count)

    @precondition(lambda self: self.is_open)
    @rule()
    def take_over_or_give_back(self) -> None:
        assert self.robot.episode is not None
        if self.intervention is None:
            self.intervention = self.robot.episode.intervention(operator="ada", reason="drifts").begin()
        else:
            self.intervention.close()
            self.intervention = None

    @precondition(lambda self: self.is_open)
    @rule()
    def end(self) -> None:
        assert self.robot.episode is not None
        self.robot.episode.end(success=True)
        self.intervention = None

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        turns(self.publisher, self.clock, count)

    @rule(count=st.integers(1, 100), topic=st.sampled_from((None, *ROBOT_TOPICS)), report=st.booleans())
    def deliver(self, count: int, topic: str | None, report: bool) -> None:
        # Without a report the connection is useless from then on; only a crash of the publisher ends that.
        self.broker.connections[-1].deliver(count, topic, report=report)
        if not report:
            self.publisher_dies()

    @rule()
    def refuse(self) -> None:
        self.broker.connections[-1].refuse()
        turns(self.publisher, self.clock)

    @rule()
    def publisher_dies(self) -> None:
        # Its descriptors are closed as the system closes them: it writes nothing down.
        self.publisher._reading._let_go()
        self.publisher._reading._frontier.close()
        self.publisher = publisher(self.path, self.broker, self.clock)

    @rule()
    def robot_is_killed(self) -> None:
        self.remember()
        self.path = self.robot.killed(self.root / str(next(self.folders)))
        self.robot = self.boot()
        self.publisher_dies()

    @rule()
    def robot_is_killed_twice(self) -> None:
        self.robot_is_killed()
        self.robot_is_killed()

    def teardown(self) -> None:
        try:
            self.robot_is_killed()
            drain(self.publisher, self.broker, self.clock)
            self.publisher.close(0)
            self.robot.store.close()
            self.check()
            assert self.robot.store.directory.acknowledged() == self.robot.store.last
        finally:
            shutil.rmtree(self.root, ignore_errors=True)  # a killed robot's thread may still tidy up

    def check(self) -> None:
        firsts: dict[tuple[int, int], RobotEvent] = {}
        newest: dict[tuple[int, str], int] = {}
        for record, event in zip(self.broker.log, self.broker.events(), strict=True):
            assert isinstance(event, RobotEvent)
            identity = (event.boot_epoch, event.sequence)
            if identity in firsts:
                assert firsts[identity] == event, "one number, two events"
                continue
            firsts[identity] = event
            partition = (event.boot_epoch, record.topic)
            assert newest.get(partition, -1) < event.sequence, "order is not kept"
            newest[partition] = event.sequence
        for epoch, count in self.recorded:
            sequences = sorted(sequence for found, sequence in firsts if found == epoch)
            assert sequences[:count] == list(range(count)), "lost"
            assert sequences == list(range(len(sequences))), "gap"
        check_episodes(list(firsts.values()), self.open_at_crash)


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
