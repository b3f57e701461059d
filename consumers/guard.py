"""`sop guard`: judges canaries by how their episodes went, and promotes or rolls back by a signed rollout.

It is one more operator, with a key of its own, and runs only where somebody starts it. What it counts are episodes
that robots began since the canary did, ONLINE, under the canary's version or the current one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from consumers.sequential import Outcome, Rates, Trial, Verdict
from infra.backoff import Backoff
from infra.clickhouse.client import ClickHouseError, Client, connect, is_deployment_error, unavailable_as_ours
from infra.clock import Clock, SystemClock
from infra.errors import ClickHouseUnavailable, DeploymentConflict, Unavailable
from infra.health import Health
from infra.policies import rollout
from infra.policies.errors import RolloutRefused
from infra.policies.keys import signing_key
from infra.policies.log import Control, RolloutLog
from infra.policies.rollout import Change
from infra.settings import Settings
from schemas.events import Canary, PolicyRollout

AUTHOR = "guard"

_OUTCOMES = """
SELECT episode_id, task, policy_version = {canary:Int64}, success, intervention_count = 0
FROM episodes
WHERE NOT excluded AND policy = {policy:String} AND source = 'ONLINE'
  AND policy_version IN ({canary:Int64}, {current:Int64})
  AND started_at >= fromUnixTimestamp64Micro({since:Int64})
  AND appended_at >= fromUnixTimestamp64Micro({since:Int64})
  AND NOT has({pinned:Array(String)}, robot_id)
ORDER BY appended_at, episode_id
"""
"""A canary's time is told by both clocks. The robot's alone tells the spool of one that was off line; where it is
ahead, the broker's still keeps older episodes out. `materialized_at` is no help: a label makes it anew.
Not `ended_at`: what was under way when the canary began is all of the current version, and is longer than most."""

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)

_log = structlog.get_logger(__name__)


@dataclass
class _Watched:
    """A canary under judgement. Episodes count in the order in which they were first seen: rows may come late."""

    canary: Canary
    current: int
    trial: Trial
    seen: set[object] = field(default_factory=set)


class Guard:
    """Looks at every line that tries a canary. `turn` is one look.

    Raises:
        SettingMissing, KeyUnusable: there is no key to sign with, or none that robots believe.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        signing_key(settings.policies)  # better now than when it matters
        self._settings = settings
        self._clock = clock or SystemClock()
        self._log = RolloutLog(settings, "guard")
        self._watched: dict[str, _Watched] = {}
        self.stuck: dict[str, str] = {}
        """By line, why its canary is judged no further (its newest rollout is not believed), and what to do."""
        self._unbelieved: dict[str, str] = {}
        self._client: Client | None = None
        limits = settings.guard
        self._rates = Rates(
            limits.odds_ratio, limits.least_difference, limits.false_promotion, limits.false_rollback
        )

    def turn(self) -> list[PolicyRollout]:
        """Judge what is tried now; the states that were written.

        Raises:
            Unavailable: a server does not answer, or not now; look again later.
            DeploymentConflict: ClickHouse has no such tables, or not for us.
        """
        written = []
        control = self._log.read()
        states = control.rollouts
        self._note(control)
        for policy in self._watched.keys() - states.keys() - self.stuck.keys():
            del self._watched[policy]
        for policy, state in states.items():
            if policy in self.stuck:
                continue
            if state.canary is None or state.current is None:
                self._watched.pop(policy, None)
                continue
            watched = self._watch(policy, state.canary, state.current)
            verdict = watched.trial.add(self._outcomes(state, watched))
            _log.info("canary_judged", policy=policy, version=state.canary.version, so_far=str(watched.trial))
            if verdict is not Verdict.UNDECIDED and (after := self._act(policy, watched, verdict)) is not None:
                written.append(after)
        return written

    def close(self) -> None:
        """Let go of ClickHouse."""
        if self._client is not None:
            self._client.close()

    def _note(self, control: Control) -> None:
        """Tell once of each line whose newest state is not believed: nobody knows if it has a canary.

        Where one is known to have begun the guard is stuck. Other lines may be somebody else's.
        """
        tried = {policy for policy, state in control.rollouts.items() if state.canary} | self._watched.keys()
        for policy, why in control.unbelieved.items():
            if self._unbelieved.get(policy) != why:
                _log.error("canary_left_alone" if policy in tried else "line_left_alone", policy=policy, error=why)
        self._unbelieved = dict(control.unbelieved)
        self.stuck = {policy: why for policy, why in control.unbelieved.items() if policy in tried}

    def _watch(self, policy: str, canary: Canary, current: int) -> _Watched:
        watched = self._watched.get(policy)
        if watched is None or (watched.canary, watched.current) != (canary, current):
            watched = self._watched[policy] = _Watched(canary, current, Trial(self._rates))
        return watched

    def _act(self, policy: str, watched: _Watched, verdict: Verdict) -> PolicyRollout | None:
        good, rates = verdict is Verdict.AS_GOOD, self._rates
        reason = (
            f"v{watched.canary.version} is {verdict} {'as' if good else 'than'} v{watched.current} "
            f"({watched.trial}; sequential test, odds ratio {rates.odds_ratio:g}, at least "
            f"{rates.least_difference:g} apart, risk of a false promotion {rates.false_promotion:g}, of a false "
            f"rollback {rates.false_rollback:g})"
        )

        def change(state: PolicyRollout | None, by: Change) -> PolicyRollout:
            if state is None or (state.canary, state.current) != (watched.canary, watched.current):
                raise RolloutRefused("somebody else has decided meanwhile")
            return (rollout.promote if good else rollout.rollback)(policy)(state, by)

        try:
            state = self._log.change(policy, change, Change(AUTHOR, reason, self._clock.now()))
        except RolloutRefused as error:
            _log.warning("canary_left_alone", policy=policy, error=str(error))
            return None
        _log.warning("canary_decided", policy=policy, verdict=verdict.value, reason=reason)
        return state

    def _outcomes(self, state: PolicyRollout, watched: _Watched) -> list[Outcome]:
        """Episodes that were not seen before."""
        fresh = []
        for episode_id, task, canary, success, autonomous in self._rows(state, watched):
            if episode_id not in watched.seen:
                watched.seen.add(episode_id)
                known = None if success is None else bool(success)
                fresh.append(Outcome(str(task), bool(canary), known, bool(autonomous)))
        return fresh

    def _rows(self, state: PolicyRollout, watched: _Watched) -> Sequence[Sequence[object]]:
        clickhouse = self._settings.clickhouse
        if self._client is None:
            self._client = connect(clickhouse, analyst=clickhouse.analyst_username is not None)
        began = watched.canary.began_at or state.written_at
        parameters = {
            "policy": state.policy,
            "canary": watched.canary.version,
            "current": watched.current,
            "since": (began - _UNIX) // timedelta(microseconds=1),
            "pinned": [pin.robot_id for pin in state.pins],
        }
        try:
            with unavailable_as_ours(clickhouse):
                return self._client.query(_OUTCOMES, parameters=parameters).result_rows
        except ClickHouseError as error:
            text = f"ClickHouse cannot tell how episodes went: {error}"
            if is_deployment_error(error):
                raise DeploymentConflict(f"{text}; run `sop deploy`") from error
            raise ClickHouseUnavailable(text) from error


def run(settings: Settings, stop: threading.Event, health: Health | None = None) -> None:
    """Judge until `stop` is set, and tell `health` how it goes.

    Raises:
        SettingMissing, KeyUnusable, DeploymentConflict: see `Guard`.
    """
    guard, health, backoff = Guard(settings), health or Health(), Backoff()
    _log.info("guard_started", **settings.guard.model_dump())
    try:
        while not stop.is_set():
            health.beat()
            try:
                guard.turn()
            except Unavailable as error:
                pause = backoff.failed()
                health.set_ready(False, str(error))
                _log.warning("guard_waits", error=str(error), retry_in=pause)
                stop.wait(pause)
            else:
                backoff.succeeded()
                health.set_ready(not guard.stuck, "; ".join(guard.stuck.values()))
                stop.wait(settings.guard.interval)
    finally:
        guard.close()
        _log.info("guard_stopped")
