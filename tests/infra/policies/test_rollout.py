"""Rollout states: which version is for which robot, and what may follow what."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infra.policies import rollout
from infra.policies.errors import RolloutRefused
from infra.policies.rollout import Change, Transition, require_sound, share_of, tries, version_for
from schemas.events import PolicyRollout, RolloutMode

BY = Change("ada", "because", datetime(2026, 3, 1, tzinfo=UTC))
ROBOTS = [f"arm-{number:02}" for number in range(200)]
LINE = "line"


def after(*transitions: Transition) -> PolicyRollout:
    state: PolicyRollout | None = None
    for transition in transitions:
        state = transition(state, BY)
    assert state is not None
    return state


def fleet(state: PolicyRollout | None, newest: int) -> set[int | None]:
    return {version_for(state, robot, newest) for robot in ROBOTS}


def test_without_any_state_the_newest_is_followed() -> None:
    assert version_for(None, "arm-01", 7) == 7
    assert version_for(None, "arm-01", None) is None


def test_a_rollback_holds_and_what_is_published_later_is_a_candidate_until_promoted() -> None:
    state = after(rollout.rollback(LINE, 3))
    assert fleet(state, newest=9) == {3}
    assert state.restored is not None
    assert state.restored.version == 3
    promoted = rollout.promote(LINE, 8)(state, BY)
    assert fleet(promoted, newest=9) == {8}
    assert promoted.restored is None
    assert fleet(rollout.follow(LINE)(promoted, BY), newest=9) == {9}


def test_a_rollback_without_a_version_ends_the_canary_and_without_one_goes_to_what_was_before() -> None:
    held = after(rollout.hold(LINE, 2), rollout.promote(LINE, 3))
    assert rollout.rollback(LINE)(held, BY).current == 2
    trying = rollout.start_canary(LINE, 4, fraction=0.25)(held, BY)
    back = rollout.rollback(LINE)(trying, BY)
    assert (back.current, back.previous, back.canary) == (3, 2, None)
    assert back.restored is not None
    assert (back.restored.generation, back.restored.version) == (back.generation, 3)


def test_a_second_rollback_does_not_bring_back_what_the_first_one_left() -> None:
    bad = after(rollout.hold(LINE, 3), rollout.promote(LINE, 4), rollout.promote(LINE, 5))
    back = rollout.rollback(LINE)(bad, BY)
    assert (back.current, back.previous) == (4, None)
    with pytest.raises(RolloutRefused, match="rolled back to version 4 already; to go further back, name one"):
        rollout.rollback(LINE)(back, BY)
    further = rollout.rollback(LINE, 3)(back, BY)
    assert (further.current, further.previous) == (3, None)
    later = rollout.rollback(LINE)(rollout.promote(LINE, 6)(back, BY), BY)
    assert (later.current, later.previous) == (4, None), "what was promoted since is left again"


def test_a_rollback_of_what_was_followed_does_not_keep_it_either() -> None:
    followed = after(rollout.hold(LINE, 5), rollout.follow(LINE))
    back = rollout.rollback(LINE, 4)(followed, BY)
    assert (back.current, back.previous) == (4, None)


def test_after_a_rollback_a_canary_that_is_given_up_does_not_bring_back_what_it_left() -> None:
    back = after(rollout.hold(LINE, 3), rollout.promote(LINE, 5), rollout.rollback(LINE))
    tried = rollout.rollback(LINE)(rollout.start_canary(LINE, 6, fraction=0.5)(back, BY), BY)
    assert (tried.current, tried.previous) == (3, None)


def test_one_canary_at_a_time_newer_ones_wait_and_follow_a_promotion() -> None:
    state = after(
        rollout.hold(LINE, 1),
        rollout.start_canary(LINE, 2, fraction=0.25),
        rollout.start_canary(LINE, 3, robots=["arm-01"]),
    )
    assert state.canary is not None
    assert (state.canary.version, [waiting.version for waiting in state.queued]) == (2, [3])
    assert fleet(state, newest=3) == {1, 2}
    next_one = rollout.promote(LINE)(state, BY)
    assert next_one.canary is not None
    assert (next_one.current, next_one.canary.version, next_one.queued) == (2, 3, ())
    assert next_one.canary.began_at == BY.at
    assert version_for(next_one, "arm-01", 3) == 3
    assert version_for(next_one, "arm-02", 3) == 2


def test_promoting_past_a_canary_ends_it() -> None:
    state = after(
        rollout.hold(LINE, 1),
        rollout.start_canary(LINE, 2, fraction=0.5),
        rollout.start_canary(LINE, 3, fraction=0.5),
    )
    promoted = rollout.promote(LINE, 4)(state, BY)
    assert (promoted.current, promoted.canary, promoted.queued) == (4, None, ())


def test_a_pinned_robot_stays_whatever_the_others_do_and_tries_nothing() -> None:
    state = after(
        rollout.pin(LINE, "arm-05", 1),
        rollout.hold(LINE, 2),
        rollout.start_canary(LINE, 3, robots=["arm-05", "arm-06"]),
    )
    assert version_for(state, "arm-05", 3) == 1
    assert not tries(state, "arm-05")
    assert version_for(rollout.unpin(LINE, "arm-05")(state, BY), "arm-05", 3) == 3
    assert version_for(after(rollout.pin(LINE, "arm-05", 1)), "arm-06", 9) == 9


@given(fraction=st.floats(0.01, 0.98), more=st.floats(0.001, 0.01))
def test_a_canary_that_grows_keeps_its_robots(fraction: float, more: float) -> None:
    small, large = (
        after(rollout.start_canary(LINE, 2, fraction=share, base=1)) for share in (fraction, fraction + more)
    )
    assert {r for r in ROBOTS if tries(small, r)} <= {r for r in ROBOTS if tries(large, r)}


def test_a_fraction_is_about_that_share_of_the_fleet_and_the_hash_never_changes() -> None:
    state = after(rollout.start_canary(LINE, 2, fraction=0.25, base=1))
    assert 30 <= sum(tries(state, robot) for robot in ROBOTS) <= 70
    assert share_of("default", "arm-07") == pytest.approx(0.6633010, abs=1e-6)


@pytest.mark.parametrize(
    ("before", "change", "why"),
    [
        ([], rollout.promote(LINE), "no canary to promote"),
        ([], rollout.rollback(LINE), "no earlier version"),
        ([], rollout.unpin(LINE, "arm-01"), "not pinned"),
        ([], rollout.start_canary(LINE, 2, fraction=0.2), "name one"),
        ([rollout.hold(LINE, 1)], rollout.start_canary(LINE, 1, fraction=0.2), "current already"),
        ([rollout.hold(LINE, 1)], rollout.start_canary(LINE, 2, fraction=1.0), "either a fraction"),
        ([rollout.hold(LINE, 1)], rollout.start_canary(LINE, 2), "either a fraction"),
        ([rollout.hold(LINE, 1)], rollout.start_canary(LINE, 2, fraction=0.1, robots=["a"]), "either a fraction"),
        (
            [rollout.hold(LINE, 1), rollout.start_canary(LINE, 2, fraction=0.1)],
            rollout.start_canary(LINE, 2, fraction=0.2),
            "tried already",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(before: list[Transition], change: Transition, why: str) -> None:
    state = after(*before) if before else None
    with pytest.raises(RolloutRefused, match=why):
        change(state, BY)


VERSIONS = st.integers(1, 6)


class Operators(RuleBasedStateMachine):
    """Operators do anything in any order; every state is sound, complete, and one generation further."""

    def __init__(self) -> None:
        super().__init__()
        self.state: PolicyRollout | None = None

    def change(self, transition: Transition) -> None:
        before = self.state
        try:
            self.state = transition(before, BY)
        except RolloutRefused:
            assert self.state is before
            return
        assert self.state.generation == (before.generation if before else 0) + 1

    @rule()
    def follow(self) -> None:
        self.change(rollout.follow(LINE))

    @rule(version=VERSIONS)
    def hold(self, version: int) -> None:
        self.change(rollout.hold(LINE, version))
        assert self.state is not None
        assert self.state.current == version

    @rule(version=st.none() | VERSIONS)
    def promote(self, version: int | None) -> None:
        self.change(rollout.promote(LINE, version))

    @rule(version=st.none() | VERSIONS)
    def roll_back(self, version: int | None) -> None:
        before = self.state
        self.change(rollout.rollback(LINE, version))
        if self.state is not before:
            assert self.state is not None
            assert (self.state.mode, self.state.canary, self.state.queued) == (RolloutMode.HOLD, None, ())
            assert self.state.restored is not None
            assert self.state.restored.generation == self.state.generation
            if before is not None and before.current != self.state.current:
                assert self.state.previous is None

    @rule(version=VERSIONS, fraction=st.floats(0, 1), robots=st.lists(st.sampled_from(ROBOTS), max_size=3))
    def start_canary(self, version: int, fraction: float, robots: list[str]) -> None:
        self.change(
            rollout.start_canary(LINE, version, fraction=0.0 if robots else fraction, robots=robots, base=1)
        )

    @rule(robot=st.sampled_from(ROBOTS[:3]), version=VERSIONS)
    def pin(self, robot: str, version: int) -> None:
        self.change(rollout.pin(LINE, robot, version))
        assert version_for(self.state, robot, 9) == version

    @rule(robot=st.sampled_from(ROBOTS[:3]))
    def unpin(self, robot: str) -> None:
        self.change(rollout.unpin(LINE, robot))

    @precondition(lambda self: self.state is not None)
    @invariant()
    def every_state_is_sound(self) -> None:
        assert self.state is not None
        require_sound(self.state)

    @invariant()
    def no_robot_runs_what_was_neither_current_nor_tried_nor_pinned(self) -> None:
        if self.state is not None and self.state.mode is RolloutMode.HOLD:
            pinned = {found.version for found in self.state.pins}
            canary = {self.state.canary.version} if self.state.canary else set()
            assert fleet(self.state, 9) <= {self.state.current} | canary | pinned


TestOperators = Operators.TestCase
