"""`sop keys` and `sop policies`, as they are typed."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.clock import ManualClock
from infra.kafka import EventProducer, OutRecord
from infra.kafka.admin import ClusterAdmin
from infra.local.stack import Stack
from infra.policies.keys import read_private, read_public
from infra.registry import Registry
from infra.settings import load_settings
from schemas.codec import encode, frame, latest
from schemas.events import Heartbeat, PolicyVersion
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS, ROBOT_STATUS, TOPICS
from sop import app
from tests.producers.fakes import announcement

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _wide(nothing_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # else tables wrap


def sop(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_keys_are_made_once_and_a_successor_pins_both() -> None:
    told = sop("keys", "new", "keys/learner")
    assert stat.S_IMODE(Path("keys/learner.key").stat().st_mode) == 0o600
    assert "BEGIN PRIVATE KEY" not in told
    assert "never written over" in sop("keys", "new", "keys/learner", code=2)
    sop("keys", "rotate", "keys/learner", "keys/learner-2")
    old, new = read_private(Path("keys/learner.key")), read_private(Path("keys/learner-2.key"))
    assert read_public(Path("keys/learner-2.pub")) == (new.public, old.public)
    assert "public keys" in sop("keys", "rotate", "keys/nobody", "keys/x", code=2)


def heartbeat(robot_id: str) -> Heartbeat:
    return Heartbeat(
        robot_id=robot_id,
        boot_epoch=1,
        reported_at=ManualClock().now(),
        spool_depth=0,
        spool_age_seconds=0.0,
        policy="",
        policy_version=0,
        episodes_ended=0,
    )


@pytest.fixture
def line(name: str) -> str:
    """A test's own: each signs with keys of its own, and another's states are not believed."""
    return f"cli-{name}"


@pytest.fixture
def published(stack: Stack, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions 1 to 4 of the line, signed; two robots' heartbeats; an operator's key in the settings."""
    for name, value in stack.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("infra.policies.robots._LONGEST", 120.0)  # a busy machine is not on trial
    sop("keys", "new", "operator")
    (public,) = read_public(Path("operator.pub"))
    monkeypatch.setenv("SOP_POLICIES__SIGNING_KEY", "operator.key")
    monkeypatch.setenv("SOP_POLICIES__OPERATOR_KEYS", json.dumps([public]))
    monkeypatch.setenv("SOP_POLICIES__LEARNER_KEYS", json.dumps([public]))
    monkeypatch.setenv("SOP_LEARNER__POLICY", line)
    settings = load_settings()
    topics = [TOPICS[POLICY_ROLLOUTS], TOPICS[POLICY_VERSIONS], TOPICS[ROBOT_STATUS]]
    ClusterAdmin(settings.kafka).ensure_topics(topics)
    registry = Registry(settings.registry)
    for topic in topics:
        registry.deploy(topic)
    schema_id = registry.id_of(POLICY_VERSIONS, latest(PolicyVersion.record))
    producer, key = EventProducer(settings.kafka, "test"), read_private(Path("operator.key"))
    for number in (1, 2, 3, 4):
        event = key.sign(announcement(number, b"weights", policy=line))
        producer.send(OutRecord(POLICY_VERSIONS, f"{line}/{number}".encode(), frame(schema_id, encode(event))))
    status_id = registry.id_of(ROBOT_STATUS, latest(Heartbeat.record))
    for robot in ("heard-1", "heard-2"):
        producer.send(OutRecord(ROBOT_STATUS, robot.encode(), frame(status_id, encode(heartbeat(robot)))))
    unsigned = announcement(5, b"weights", policy=line)
    producer.send(OutRecord(POLICY_VERSIONS, f"{line}/5".encode(), frame(schema_id, encode(unsigned))))
    assert producer.flush(30.0) == 0


@pytest.mark.usefixtures("published")
def test_an_operator_s_day(line: str) -> None:
    assert "nothing was ever said" in sop("policies", "show")
    assert "generation 1: v3 is held; the learner goes on from v3" in sop(
        "policies", "rollback", "--reason", "worse"
    )
    assert "note:" not in sop("policies", "pin", "heard-1", "2", "--author", "ada")
    assert "by ada" in sop("policies", "show")
    told = sop("policies", "canary", "4", "--fraction", "0.25")
    assert "v3 is held; 25% of the robots try v4; heard-1 is pinned to v2" in told
    listed = sop("policies", "list")
    for role in (
        "canary (25% of the robots)",
        "current",
        "pinned: heard-1",
        f"not believed: {line}/5: it is not signed",
    ):
        assert role in listed
    assert "generation 4: v4 is held; heard-1 is pinned to v2" in sop("policies", "promote")
    assert "generation 5: v4 is held" in sop("policies", "unpin", "heard-1")
    assert "v1 is held" in sop("policies", "hold", "1")
    assert "the newest version is followed" in sop("policies", "follow")


@pytest.mark.usefixtures("published")
def test_a_robot_that_nobody_heard_of_is_pinned_all_the_same_and_named_with_those_that_are_known() -> None:
    told = sop("policies", "pin", "heard-l", "2")
    assert "heard-l is pinned to v2" in told
    assert "note: no robot heard-l was ever heard of; there are heard-" in told
    sop("policies", "unpin", "heard-l")
    told = sop("policies", "canary", "4", "--robot", "unheard", "--robot", "heard-2")
    assert told.count("note:") == told.count("no robot unheard was ever heard of") == 1
    sop("policies", "follow")


@pytest.mark.usefixtures("published")
def test_a_second_rollback_asks_for_a_version() -> None:
    sop("policies", "hold", "3")
    sop("policies", "promote", "4")
    assert "v3 is held" in sop("policies", "rollback")
    assert "rolled back to version 3 already; to go further back, name one (--to)" in sop(
        "policies", "rollback", code=1
    )
    assert "v2 is held" in sop("policies", "rollback", "--to", "2")
    sop("policies", "follow")


@pytest.mark.usefixtures("published")
def test_what_cannot_be_done_is_said_in_a_line_and_nothing_is_written(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sop("policies", "show")
    assert f"no version 9 of {line}; there are 1, 2, 3, 4" in sop("policies", "promote", "9", code=1)
    assert "can be believed: it is not signed" in sop("policies", "rollback", "--to", "5", code=1)
    assert "either a fraction" in sop("policies", "canary", "4", code=1)
    assert "not pinned" in sop("policies", "unpin", "arm-9", code=1)
    assert "is no policy line" in sop("policies", "follow", "--policy", f"{line}/5", code=2)
    monkeypatch.delenv("SOP_POLICIES__SIGNING_KEY")
    assert "sop keys new" in sop("policies", "hold", "1", code=2)
    assert sop("policies", "show") == before


@pytest.mark.usefixtures("published")
def test_of_a_rollout_that_a_lacking_key_signed_the_order_is_refused_until_the_key_is_there_or_it_is_given_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = read_private(Path("operator.key"))
    assert "generation 1: v3 is held" in sop("policies", "hold", "3", "--reason", "good")
    sop("keys", "new", "successor")
    new = read_private(Path("successor.key"))
    monkeypatch.setenv("SOP_POLICIES__SIGNING_KEY", "successor.key")
    monkeypatch.setenv("SOP_POLICIES__OPERATOR_KEYS", json.dumps([new.public]))
    refused = sop("policies", "pin", "heard-1", "4", code=1)
    said = f"generation 1 (it is signed by key {old.key_id}, which SOP_POLICIES__OPERATOR_KEYS lacks"
    for part in ("nothing was written", said, "nothing else is", "--over-unbelieved"):
        assert part in refused
    shown = sop("policies", "show")
    assert said in shown
    assert "nothing was ever said" not in shown
    monkeypatch.setenv("SOP_POLICIES__OPERATOR_KEYS", json.dumps([new.public, old.public]))
    assert "generation 2: v3 is held; heard-1 is pinned to v4" in sop("policies", "pin", "heard-1", "4")
    monkeypatch.setenv("SOP_POLICIES__OPERATOR_KEYS", json.dumps([new.public]))
    assert "generation 3: v3 is held" in sop("policies", "unpin", "heard-1")
    # Nobody has the keys any more: what they signed is given up, and robots take what comes as newer all the same.
    sop("keys", "new", "third")
    third = read_private(Path("third.key"))
    monkeypatch.setenv("SOP_POLICIES__SIGNING_KEY", "third.key")
    monkeypatch.setenv("SOP_POLICIES__OPERATOR_KEYS", json.dumps([third.public]))
    assert f"by key {new.key_id}" in sop("policies", "hold", "2", code=1)
    over = re.search(r", generation (\d+): v2 is held", sop("policies", "hold", "2", "--over-unbelieved"))
    assert over is not None
    assert int(over[1]) > 3
    assert "the newest version is followed" in sop("policies", "follow")
