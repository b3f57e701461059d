"""Policies on real servers: what arrives, what is refused, and who hears of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from infra.kafka import EventProducer, OutRecord
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.policies import rollout
from infra.policies.announced import Announced
from infra.policies.errors import RolloutNotBelieved
from infra.policies.keys import SigningKey
from infra.policies.log import RolloutLog
from infra.registry import Registry
from infra.settings import Settings
from learner.policies.artifact import pack_json
from producers import policy_link
from producers.errors import Undelivered
from producers.policy_feed import KafkaPolicyFeed
from producers.policy_fit import RobotKind
from producers.policy_inbox import PolicyInbox
from producers.policy_swap import swap
from producers.robot import RobotClient
from schemas.codec import frame, latest
from schemas.events import Heartbeat, PolicyActivated, PolicyRollout, PolicyVersion, Step
from schemas.topics import POLICY_ACTIVATIONS, POLICY_ROLLOUTS, POLICY_VERSIONS, ROBOT_STATUS
from tests.producers.fakes import (
    BELIEVING,
    FEATURES,
    OPERATOR,
    announcement,
    as_sent,
    rolled_out,
    sent,
)
from tests.producers.integration.conftest import DEADLINE, once, read

_numbers = itertools.count(1)


def artifact(seed: int, **changes: Any) -> bytes:
    document = {
        "features": [feature.model_dump(mode="json") for feature in FEATURES],
        "chunk": 4,
        "fps": 10.0,
        "state_mean": [0.0] * 3,
        "state_std": [1.0] * 3,
    }
    return pack_json(document | changes, {"w": np.full(300, seed, np.float32)})


class Fleet:
    """One line of its own, and a robot that follows it."""

    def __init__(self, settings: Settings, tmp_path: Path) -> None:
        number = next(_numbers)
        self.line, self.robot = f"line-{number}", f"follower-{number}"
        self.settings = settings.model_copy(update={"policies": BELIEVING})
        self.store = ObjectStore(settings.s3)
        self._registry = Registry(settings.registry)
        self._producer = EventProducer(settings.kafka, "test-control")
        self._dir = tmp_path

    def version(self, number: int, data: bytes, **changes: Any) -> PolicyVersion:
        uri = self.store.uri(f"policies/{self.line}/{number}")
        return announcement(number, data, **{"policy": self.line, "artifact_uri": uri, **changes})

    def send(self, announced: Announced[Any]) -> None:
        topic = POLICY_VERSIONS if isinstance(announced.event, PolicyVersion) else POLICY_ROLLOUTS
        schema_id = self._registry.id_of(topic, latest(announced.event.record))
        self._producer.send(OutRecord(topic, announced.key.encode(), frame(schema_id, announced.body)))
        assert self._producer.flush(DEADLINE) == 0

    def publish(self, number: int, data: bytes, stored: bytes | None = None) -> Announced[PolicyVersion]:
        announced = sent(self.version(number, data))
        self.store.put(self.store.key(announced.event.artifact_uri), data if stored is None else stored)
        self.send(announced)
        return announced

    def roll_out(self, *transitions: rollout.Transition, over_unbelieved: bool = False) -> PolicyRollout:
        signed = self.settings.policies.model_copy(update={"signing_key_pem": SecretStr(OPERATOR.pem().decode())})
        log = RolloutLog(self.settings.model_copy(update={"policies": signed}))
        by = rollout.Change("ada", "because", self.version(1, b"").published_at)
        for transition in transitions:
            state = log.change(self.line, transition, by, over_unbelieved=over_unbelieved)
        return state

    @contextmanager
    def following(self, **changes: Any) -> Iterator[tuple[RobotClient, PolicyInbox]]:
        kind = RobotKind(FEATURES, fps=10.0)
        settings = changes.pop("settings", self.settings)
        with RobotClient(
            settings, self.robot, self._dir, close_timeout=DEADLINE, heartbeat_interval=0.2
        ) as client:
            yield client, client.follow(self.line, **{"kind": kind, **changes})

    def told(self) -> set[str]:
        """Every error that the robot has told on robot-status."""
        beats = [
            event for _, event in read(self.settings, self.robot, ROBOT_STATUS) if isinstance(event, Heartbeat)
        ]
        return {error for beat in beats for error in beat.errors}

    def activated(self) -> list[int]:
        found = [event for _, event in read(self.settings, self.robot, POLICY_ACTIVATIONS)]
        return [event.version for event in found if isinstance(event, PolicyActivated)]


@pytest.fixture
def fleet(settings: Settings, tmp_path: Path) -> Fleet:
    return Fleet(settings, tmp_path)


def eventually(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def becomes(inbox: PolicyInbox, version: int) -> None:
    found = inbox.wait_for(lambda announced: announced.version == version, DEADLINE)
    assert found is not None, f"v{version} did not come: {inbox.errors()}"


def load(data: bytes) -> bytes:
    return data


def test_a_signed_policy_reaches_the_robot_runs_and_is_announced(fleet: Fleet) -> None:
    data = artifact(1)
    with fleet.following() as (client, inbox):
        fleet.publish(1, data)
        becomes(inbox, 1)
        assert swap(client, inbox, load) == data
        fleet.publish(2, artifact(2))
        becomes(inbox, 2)
        fleet.roll_out(rollout.rollback(fleet.line, 1))
        becomes(inbox, 1)
        assert inbox.errors() == ()
    assert fleet.activated() == [1]


BAD: dict[str, tuple[Callable[[Fleet, Announced[PolicyVersion]], None], str]] = {
    "corrupt": (
        lambda fleet, _: _as_none(fleet.publish(2, artifact(2), stored=artifact(2)[:-1] + b"?")),
        "v2: sha256 is",
    ),
    "truncated": (
        lambda fleet, _: _as_none(fleet.publish(2, artifact(2), stored=artifact(2)[:-10])),
        "bytes, announced were",
    ),
    "unsigned": (lambda fleet, _: fleet.send(as_sent(fleet.version(2, artifact(2)))), "v2: it is not signed"),
    "wrongly signed": (
        lambda fleet, _: fleet.send(sent(fleet.version(2, artifact(2)), by=SigningKey.generate())),
        "v2: it is signed by key",
    ),
    "signed by an operator": (
        lambda fleet, _: fleet.send(sent(fleet.version(2, artifact(2)), by=OPERATOR)),
        f"v2: it is signed by key {OPERATOR.key_id}",
    ),
    "replayed as newer": (
        lambda fleet, first: fleet.send(Announced(f"{fleet.line}/2", first.event, first.body, first.writer)),
        "v1: it was sent under the key",
    ),
    "another robot's": (
        lambda fleet, _: _as_none(fleet.publish(2, artifact(2, fps=50.0))),
        "v2: it controls at 50 Hz",
    ),
}


def _as_none(_: object) -> None:
    return None


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_is_refused_with_its_reason_on_robot_status_and_the_good_one_runs(
    name: str, fleet: Fleet
) -> None:
    send, why = BAD[name]
    good = artifact(1)
    with fleet.following() as (client, inbox):
        first = fleet.publish(1, good)
        becomes(inbox, 1)
        assert swap(client, inbox, load) == good
        send(fleet, first)
        eventually(lambda: any(why in error for error in inbox.errors()), f"not refused: {inbox.errors()}")
        assert swap(client, inbox, load) is None
        client.heartbeat()
        eventually(lambda: any(why in error for error in fleet.told()), "not told")
        fleet.publish(3, artifact(3))
        becomes(inbox, 3)
    assert fleet.activated() == [1]


def test_an_old_version_and_an_old_rollout_that_are_sent_again_are_refused_and_told(fleet: Fleet) -> None:
    with fleet.following() as (client, inbox):
        first = fleet.publish(1, artifact(1))
        fleet.publish(2, artifact(2))
        becomes(inbox, 2)
        old = fleet.roll_out(rollout.hold(fleet.line, 1))
        becomes(inbox, 1)
        fleet.roll_out(rollout.promote(fleet.line, 2))
        becomes(inbox, 2)
        fleet.send(first)
        fleet.send(as_sent(old))
        for why in ("v1: announced again", "rollout 1 is older than generation 2"):
            eventually(lambda why=why: any(why in error for error in inbox.errors()), why)  # type: ignore[misc]
        assert inbox.current() is not None
        client.heartbeat()
        eventually(lambda: any("rollout 1 is older" in error for error in fleet.told()), "not told")
    # The replayed state is the last record of its key, and the robot still knows better after a boot.
    with fleet.following() as (_, inbox):
        eventually(lambda: any("rollout 1 is older" in error for error in inbox.errors()), "not refused")
        becomes(inbox, 2)


def test_a_boot_hears_how_its_rollout_came_about_and_calls_nothing_wrong(fleet: Fleet) -> None:
    with fleet.following() as (_, inbox):
        fleet.publish(1, artifact(1))
        fleet.publish(2, artifact(2))
        becomes(inbox, 2)
        fleet.roll_out(*(rollout.hold(fleet.line, number) for number in (2, 1, 2, 1)))
        becomes(inbox, 1)
    with capture_logs() as logs, fleet.following() as (_, inbox):
        eventually(inbox._feed.heard_all, "the topics' end was not reached")
        becomes(inbox, 1)
        assert inbox.errors() == ()
    assert [log for log in logs if log["event"] == "policy_refused"] == []


def test_a_line_that_was_misspelt_is_told_on_robot_status_with_those_that_are_known(fleet: Fleet) -> None:
    right = fleet.line
    fleet.publish(1, artifact(1))
    fleet.line = f"{right}-x"
    with fleet.following() as (client, inbox):
        why = f"no policy line '{fleet.line}' on policy-versions yet; known: "
        eventually(lambda: any(error.startswith(why) and right in error for error in client.errors()), "not told")
        client.heartbeat()
        eventually(lambda: any(error.startswith(why) for error in fleet.told()), "not on robot-status")
        fleet.publish(1, artifact(1))
        becomes(inbox, 1)
        assert inbox.errors() == ()


def test_an_unsigned_rollout_moves_nobody_and_nobody_builds_on_it(fleet: Fleet) -> None:
    with fleet.following() as (_, inbox):
        fleet.publish(1, artifact(1))
        fleet.publish(2, artifact(2))
        becomes(inbox, 2)
        forged = rolled_out(*[rollout.hold(fleet.line, 1)] * 9)
        fleet.send(as_sent(forged))
        eventually(lambda: any("rollout 9: it is not signed" in error for error in inbox.errors()), "not refused")
        pin = rollout.pin(fleet.line, fleet.robot, 1)
        with pytest.raises(RolloutNotBelieved, match="generation 9"):
            fleet.roll_out(pin)
        state = fleet.roll_out(pin, over_unbelieved=True)
        assert state.generation > 9
        assert state.current is None
        becomes(inbox, 1)


def test_with_every_server_s_address_dead_a_boot_runs_what_ran_last_records_and_says_so(fleet: Fleet) -> None:
    good = artifact(1)
    with fleet.following() as (client, inbox):
        fleet.publish(1, good)
        becomes(inbox, 1)
        swap(client, inbox, load)
    kafka = fleet.settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9", "request_timeout": 1.0})
    s3 = fleet.settings.s3.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    registry = fleet.settings.registry.model_copy(update={"url": "http://127.0.0.1:9/x", "timeout": 1.0})
    dead = {"kafka": kafka, "s3": s3, "registry": registry}
    client = RobotClient(fleet.settings.model_copy(update=dead), fleet.robot, fleet._dir)
    inbox = client.follow(fleet.line, kind=RobotKind(FEATURES, fps=10.0))
    assert swap(client, inbox, load) == good
    with client.episode(task="push", instruction="Push.", features=FEATURES, fps=10.0) as episode:
        episode.step(state=np.zeros(3), action=np.zeros(2))
    for said in ("Kafka: ", "the schema registry: ", "policies cannot be followed: "):
        eventually(lambda said=said: any(said in e for e in client.errors()), said)  # type: ignore[misc]
    with pytest.raises(Undelivered, match="kept in"):
        client.close(0.1)
    with fleet.following() as (again, _):
        eventually(lambda: again._outbox.depth() == 0, "not sent on the next boot")
    steps = [event for event in once(fleet.settings, fleet.robot) if isinstance(event, Step)]
    assert [(step.boot_epoch, step.policy_version) for step in steps] == [(client.boot_epoch, 1)]
    assert fleet.activated() == [1, 1]


class Gated(KafkaPolicyFeed):
    """Brings no more than an artifact's first part before `go_on`."""

    def __init__(self, settings: Settings, robot_id: str) -> None:
        super().__init__(settings, robot_id)
        self.go_on = threading.Event()

    def read(self, announcement: PolicyVersion, start: int, length: int) -> memoryview:
        assert start == 0 or self.go_on.wait(DEADLINE)
        return super().read(announcement, start, length)


def test_an_object_store_that_dies_in_the_middle_is_waited_out_and_the_download_goes_on(
    fleet: Fleet, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_link, "_FIRST", 2**16)
    data = pack_json({}, {"w": np.random.default_rng(0).random(200_000, np.float32)})
    feed = Gated(fleet.settings, fleet.robot)
    with fleet.following(feed=feed, kind=None) as (_, inbox):
        fleet.publish(1, data)
        folder = tmp_path / "policies" / fleet.line
        eventually(lambda: any(part.stat().st_size > 0 for part in folder.glob("*.part")), "nothing came")
        stack.kill("object_store")
        feed.go_on.set()
        try:
            eventually(lambda: any("cannot be followed" in error for error in inbox.errors()), "not told")
            (part,) = folder.glob("*.part")
            assert 0 < part.stat().st_size < len(data)
        finally:
            stack.restart("object_store")
        becomes(inbox, 1)
        file = inbox.current()
        assert file is not None
        assert file.read() == data
