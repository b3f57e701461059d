"""The guard against Kafka and ClickHouse: emulated robots play, it judges, and what it says is signed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from pydantic import SecretStr
from structlog.testing import capture_logs

from consumers.guard import AUTHOR, Guard, run
from consumers.rows import columns_of, rows_of
from infra.clickhouse.client import Client, connect
from infra.clickhouse.inserting import insert_rows
from infra.clickhouse.migrate import migrate
from infra.clock import SystemClock
from infra.errors import ClickHouseUnavailable, DeploymentConflict, InfraError, SettingMissing
from infra.health import Health
from infra.kafka import EventProducer, OutRecord
from infra.kafka.admin import ClusterAdmin
from infra.local.stack import Stack
from infra.policies import rollout
from infra.policies.keys import SigningKey
from infra.policies.log import RolloutLog
from infra.policies.rollout import Change, version_for
from infra.registry import Registry
from infra.settings import PolicySettings, Settings
from schemas.codec import encode, frame, latest
from schemas.events import EpisodeMaterialized, EpisodeSource, PolicyRollout
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS, TOPICS
from tests.consumers.robots import uuid7
from tests.schemas.golden import EXAMPLES

ROBOTS = [f"arm-{number:03}" for number in range(80)]
KEY = SigningKey.generate()
BY = Change("ada", "a new version", SystemClock().now())
TIMES = ("started_at", "ended_at", "appended_at", "materialized_at")
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**stack.environment(), "SOP_CLICKHOUSE__DATABASE": "tests_guard"}.items():
            patch.setenv(name, value)
        policies = PolicySettings(
            signing_key_pem=SecretStr(KEY.pem().decode()), operator_keys=(KEY.public,), learner_keys=(KEY.public,)
        )
        found = Settings(policies=policies)
        topics = [TOPICS[POLICY_ROLLOUTS], TOPICS[POLICY_VERSIONS]]
        ClusterAdmin(found.kafka).ensure_topics(topics)
        for topic in topics:
            Registry(found.registry).deploy(topic)
        migrate(found.clickhouse)
        yield found


class Fleet:
    """Robots that do what the rollout says; episodes succeed, and need no help, as often as their version does."""

    def __init__(self, settings: Settings, policy: str, rates: dict[int, float], seed: int) -> None:
        self.policy, self.rates = policy, rates
        self._settings = settings
        self._client: Client = connect(settings.clickhouse)
        self._chance = random.Random(seed)
        example = next(
            stored.event
            for stored in EXAMPLES
            if isinstance(stored.event, EpisodeMaterialized) and stored.event.interventions
        )
        assert isinstance(example, EpisodeMaterialized)
        self._like = example

    def play(
        self,
        state: PolicyRollout | None,
        source: EpisodeSource = EpisodeSource.ONLINE,
        since_now: Mapping[str, timedelta] = MappingProxyType({}),
    ) -> set[str]:
        """One episode of every robot, whose times are now or so far from it; their ids."""
        rows = []
        for robot in ROBOTS:
            version = version_for(state, robot, max(self.rates)) or 0
            now = SystemClock().now()
            span = () if self._chance.random() < self.rates[version] else self._like.interventions[:1]
            event = self._like.model_copy(
                update={
                    "episode_id": str(uuid7()),
                    "robot_id": robot,
                    "policy": self.policy,
                    "policy_versions": (version,),
                    "source": source,
                    "task": self._chance.choice(("lift", "push")),
                    "success": self._chance.random() < self.rates[version],
                    "interventions": span,
                    **{time: now + since_now.get(time, timedelta()) for time in TIMES},
                }
            )
            rows.append(rows_of(event, 0, 0)[0])
        insert_rows(
            self._client,
            self._settings.clickhouse,
            "raw_episodes",
            columns_of(rows),
            [list(row.values.values()) for row in rows],
        )
        return {str(row.values["episode_id"]) for row in rows}


def decided(settings: Settings, fleet: Fleet, rounds: int = 60) -> PolicyRollout:
    """Let the fleet play until the guard has said something."""
    log, guard = RolloutLog(settings), Guard(settings)
    log.change(fleet.policy, rollout.start_canary(fleet.policy, 2, fraction=0.25, base=1), BY)
    try:
        for _ in range(rounds):
            fleet.play(log.newest(fleet.policy))
            written = [state for state in guard.turn() if state.policy == fleet.policy]
            if written:
                assert log.newest(fleet.policy) == written[-1]
                return written[-1]
    finally:
        guard.close()
    raise AssertionError("undecided")


def test_a_worse_policy_on_a_quarter_of_the_fleet_is_rolled_back_and_the_reason_kept(settings: Settings) -> None:
    fleet = Fleet(settings, "guard-worse", {1: 0.8, 2: 0.4}, seed=1)
    state = decided(settings, fleet)
    assert (state.current, state.canary, state.author) == (1, None, AUTHOR)
    assert state.restored is not None
    assert state.restored.version == 1
    assert state.key_id == KEY.key_id
    assert state.reason.startswith("v2 is worse than v1 (success ")
    assert {version_for(state, robot, 2) for robot in ROBOTS} == {1}


def test_a_better_policy_is_promoted_and_the_next_that_waits_begins(settings: Settings) -> None:
    fleet = Fleet(settings, "guard-better", {1: 0.4, 2: 0.8}, seed=2)
    state = decided(settings, fleet)
    assert (state.current, state.previous, state.canary, state.restored) == (2, 1, None, None)
    assert "v2 is as good as v1" in state.reason
    assert {version_for(state, robot, 2) for robot in ROBOTS} == {2}


def test_what_was_played_before_elsewhere_or_in_evaluation_does_not_count(settings: Settings) -> None:
    policy = "guard-foreign"
    fleet, other = (Fleet(settings, name, {1: 0.9, 2: 0.1}, seed=3) for name in (policy, "guard-other"))
    log, guard = RolloutLog(settings), Guard(settings)
    trying = rollout.start_canary(policy, 2, fraction=0.25, base=1)(None, BY)
    for _ in range(10):
        fleet.play(trying)
        other.play(trying)
    later = Change("ada", "", SystemClock().now() + timedelta(seconds=1))
    log.change(policy, rollout.start_canary(policy, 2, fraction=0.25, base=1), later)
    for _ in range(10):
        other.play(trying)
        fleet.play(trying, EpisodeSource.EVALUATION)
    assert [state for state in guard.turn() if state.policy == policy] == []
    assert not guard._watched[policy].seen
    guard.close()


@pytest.mark.parametrize(
    "since_now",
    [
        pytest.param(dict.fromkeys(TIMES[:3], -WEEK), id="labelled today"),
        pytest.param({"started_at": -WEEK, "ended_at": -WEEK}, id="from the spool of a robot that was off line"),
        pytest.param({"started_at": -timedelta(minutes=5)}, id="under way when the canary began"),
        pytest.param({"started_at": WEEK, "ended_at": WEEK, "appended_at": -WEEK}, id="by a clock that is ahead"),
    ],
)
def test_an_episode_that_was_played_before_the_canary_does_not_count_whenever_it_was_stored(
    settings: Settings, request: pytest.FixtureRequest, since_now: dict[str, timedelta]
) -> None:
    policy = request.node.callspec.id.replace(" ", "-")
    fleet, log, guard = Fleet(settings, policy, {1: 0.9, 2: 0.1}, seed=5), RolloutLog(settings), Guard(settings)
    began = Change("ada", "a new version", SystemClock().now())
    trying = log.change(policy, rollout.start_canary(policy, 2, fraction=0.25, base=1), began)
    before, since = fleet.play(trying, since_now=since_now), fleet.play(trying)
    guard.turn()
    seen = {str(episode_id) for episode_id in guard._watched[policy].seen}
    guard.close()
    assert (len(seen & before), len(seen & since)) == (0, len(ROBOTS))


class Refusing:
    """A client whose server answers every query with one error."""

    def __init__(self, code: int | None) -> None:
        self._error = DatabaseError(f"Code: {code}. DB::Exception: so it is", code=code)

    def query(self, *_: object, **__: object) -> None:
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, ClickHouseUnavailable) for code in (159, 202, 241, 242, 999, None)),
        *((code, DeploymentConflict) for code in (16, 60, 81, 497)),
    ],
)
def test_only_a_missing_deployment_ends_the_guard_and_what_passes_is_waited_out(
    settings: Settings, code: int | None, kind: type[InfraError]
) -> None:
    policy = f"guard-refused-{code}"
    guard, log = Guard(settings), RolloutLog(settings)
    log.change(policy, rollout.start_canary(policy, 2, fraction=0.25, base=1), BY)
    guard._client = Refusing(code)  # type: ignore[assignment]
    with pytest.raises(InfraError, match="so it is") as failed:
        guard.turn()
    assert failed.type is kind
    guard.close()


def test_a_canary_that_an_operator_has_decided_meanwhile_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = "guard-late"
    fleet, log, guard = Fleet(settings, policy, {1: 0.9, 2: 0.1}, seed=4), RolloutLog(settings), Guard(settings)
    log.change(policy, rollout.start_canary(policy, 2, fraction=0.25, base=1), BY)
    for _ in range(20):
        fleet.play(log.newest(policy))
    outcomes = guard._outcomes

    def operator_first(*args: object) -> object:
        if getattr(args[0], "policy", "") == policy:
            log.change(policy, rollout.promote(policy), BY)
        return outcomes(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(guard, "_outcomes", operator_first)
    assert [state for state in guard.turn() if state.policy == policy] == []
    newest = log.newest(policy)
    assert newest is not None
    assert (newest.current, newest.author) == (2, "ada")
    guard.close()


class OneTurn(threading.Event):
    """Stops who waits on it."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def test_a_canary_of_which_a_lacking_key_may_have_decided_is_left_alone_and_ready_says_whose_it_is(
    settings: Settings,
) -> None:
    policy, other = "guard-unbelieved", SigningKey.generate()
    fleet, log, guard = Fleet(settings, policy, {1: 0.9, 2: 0.1}, seed=5), RolloutLog(settings), Guard(settings)
    trying = log.change(policy, rollout.start_canary(policy, 2, fraction=0.25, base=1), BY)
    for _ in range(20):
        fleet.play(trying)
    decided_there = other.sign(rollout.promote(policy)(trying, BY))
    schema_id = Registry(settings.registry).id_of(POLICY_ROLLOUTS, latest(PolicyRollout.record))
    producer = EventProducer(settings.kafka, "another-operator")
    producer.send(OutRecord(POLICY_ROLLOUTS, policy.encode(), frame(schema_id, encode(decided_there))))
    assert producer.flush(30.0) == 0
    assert [state for state in guard.turn() if state.policy == policy] == []
    assert f"generation 2 (it is signed by key {other.key_id}" in guard.stuck[policy]
    health = Health()
    run(settings, OneTurn(), health)
    ready, why = health.readiness()
    assert (ready, guard.stuck[policy] in why) == (False, True), why
    log.change(policy, rollout.hold(policy, 1), BY, over_unbelieved=True)  # its canary goes on
    (state,) = [state for state in guard.turn() if state.policy == policy]
    assert (state.current, state.author, guard.stuck) == (1, AUTHOR, {})
    guard.close()


def test_a_line_whose_state_it_never_believed_is_told_of_once_and_leaves_it_ready(settings: Settings) -> None:
    policy, stranger = "guard-strangers", SigningKey.generate()
    held = stranger.sign(rollout.hold(policy, 1)(None, BY))
    schema_id = Registry(settings.registry).id_of(POLICY_ROLLOUTS, latest(PolicyRollout.record))
    producer = EventProducer(settings.kafka, "strangers")
    producer.send(OutRecord(POLICY_ROLLOUTS, policy.encode(), frame(schema_id, encode(held))))
    assert producer.flush(30.0) == 0
    guard = Guard(settings)
    with capture_logs() as logs:
        guard.turn()
        guard.turn()
    guard.close()
    assert [one["event"] for one in logs if one.get("policy") == policy] == ["line_left_alone"]
    assert policy not in guard.stuck


def test_without_a_key_it_does_not_start(settings: Settings) -> None:
    with pytest.raises(SettingMissing, match="SOP_POLICIES__SIGNING_KEY"):
        Guard(settings.model_copy(update={"policies": PolicySettings()}))
