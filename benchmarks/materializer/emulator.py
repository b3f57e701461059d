"""Emulated robots at the wire: what a fleet puts on the topics, without a simulator and without a client each."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime

import fastavro
import numpy as np
import uuid_utils

from infra.kafka import EventProducer, OutRecord
from infra.registry import Registry
from infra.settings import Settings
from schemas import codec
from schemas.events import EpisodeBoundary, EpisodeEnd, EpisodeEnded, EpisodeSource, EpisodeStarted, Feature
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS

STATE, ACTION, EPISODE_STEPS = 32, 14, 300
FEATURES = (Feature(name="state", shape=(STATE,)), Feature(name="action", shape=(ACTION,)))


class _Robot:
    __slots__ = ("episode", "first", "index", "name", "sequence")

    def __init__(self, name: str, index: int) -> None:
        self.name, self.index = name, index
        self.episode, self.first, self.sequence = "", 0, 0


class EmulatedFleet:
    """`robots` robots with a 32-float state and a 14-float action, in episodes of 300 steps.

    Args:
        settings: where Kafka and the registry are.
        robots: how many.
        staggered: whether their episodes end at different times, as a real fleet's do.
    """

    def __init__(self, settings: Settings, robots: int, *, staggered: bool = True, linger_ms: int = 5) -> None:
        registry = Registry(settings.registry)
        self._schema = codec.latest("step")
        self._step_id = registry.id_of(ROBOT_STEPS, self._schema)
        self._boundary_id = registry.id_of(ROBOT_EPISODES, codec.latest("episode_boundary"))
        self._producer = EventProducer(settings.kafka, "emulated-fleet", linger_ms=linger_ms)
        run = uuid.uuid4().hex[:6]
        shift = EPISODE_STEPS // robots if robots < EPISODE_STEPS else 1
        self._robots = [
            _Robot(f"robot-{run}-{n:04d}", (n * shift) % EPISODE_STEPS if staggered else 0) for n in range(robots)
        ]
        self._random = np.random.default_rng(0)
        self.steps = self.episodes = 0

    def tick(self) -> None:
        """One control step of every robot."""
        states = self._random.standard_normal((len(self._robots), STATE)).astype("<f4")
        actions = self._random.standard_normal((len(self._robots), ACTION)).astype("<f4")
        for n, robot in enumerate(self._robots):
            if not robot.episode:
                robot.episode, robot.first = str(uuid_utils.uuid7()), robot.sequence
                self._boundary(robot, _started())
            self._step(robot, states[n].tobytes(), actions[n].tobytes())
            if robot.index >= EPISODE_STEPS:
                self._end(robot)
        self._producer.poll(0)

    def finish(self) -> None:
        """End all open episodes; everything is acknowledged when this returns.

        Raises:
            RuntimeError: it was not acknowledged within two minutes.
        """
        for robot in self._robots:
            if robot.episode:
                self._end(robot)
        if self._producer.flush(120):
            raise RuntimeError("the fleet's events were not acknowledged within 120 s")

    def _step(self, robot: _Robot, state: bytes, action: bytes) -> None:
        body = io.BytesIO()
        fastavro.schemaless_writer(
            body,
            self._schema.parsed,
            {
                "episode_id": robot.episode,
                "robot_id": robot.name,
                "boot_epoch": 1,
                "sequence": robot.sequence,
                "captured_at": datetime.now(UTC),
                "index": robot.index,
                "actor": "POLICY",
                "policy_version": 37,
                "state": state,
                "action": action,
                "proposed_action": None,
                "reward": 0.5,
            },
        )
        self._put(ROBOT_STEPS, robot, codec.frame(self._step_id, body.getvalue()))
        robot.index += 1
        self.steps += 1

    def _end(self, robot: _Robot) -> None:
        self._boundary(
            robot,
            EpisodeEnded(
                first_sequence=robot.first,
                end=EpisodeEnd.TERMINATED,
                success=True,
                step_count=robot.sequence - robot.first - 1,
                intervention_count=0,
            ),
        )
        robot.episode, robot.index = "", 0
        self.episodes += 1

    def _boundary(self, robot: _Robot, body: EpisodeStarted | EpisodeEnded) -> None:
        event = EpisodeBoundary(
            episode_id=robot.episode,
            robot_id=robot.name,
            boot_epoch=1,
            sequence=robot.sequence,
            captured_at=datetime.now(UTC),
            body=body,
        )
        self._put(ROBOT_EPISODES, robot, codec.frame(self._boundary_id, codec.encode(event)))

    def _put(self, topic: str, robot: _Robot, value: bytes) -> None:
        while not self._producer.send(OutRecord(topic, robot.name.encode(), value)):
            self._producer.poll(0.1)
        robot.sequence += 1


def _started() -> EpisodeStarted:
    return EpisodeStarted(
        task="bench",
        instruction="move",
        embodiment="arm",
        features=FEATURES,
        fps=30.0,
        source=EpisodeSource.ONLINE,
    )
