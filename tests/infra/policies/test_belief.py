"""Which states may be the newest of a line, though nobody here believes them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.policies import rollout
from infra.policies.announced import Announced, Undecodable
from infra.policies.belief import States, Unbelieved, generation_over, newest_unknown, states_in
from infra.policies.keys import Keyring, SigningKey
from infra.policies.rollout import Change, going_on_from
from schemas.events import PolicyRollout, RolloutMode
from tests.producers.fakes import OPERATOR, as_sent, rolled_out, sent

STRANGER = SigningKey.generate()
RING = Keyring([OPERATOR.public], setting="KEYS")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LINE = "line"


def state(generation: int, *, by: SigningKey | None = OPERATOR, key: str = LINE) -> Announced[PolicyRollout]:
    event = rolled_out(rollout.hold(LINE, 1)).model_copy(update={"generation": generation})
    return as_sent(event, key) if by is None else sent(event, key=key, by=by)


def judged(*records: Announced[PolicyRollout] | Undecodable) -> States:
    return states_in(records, RING)


def claimed(states: States, line: str = LINE) -> list[int | None]:
    return [each.generation for each in states.unbelieved.get(line, [])]


def test_a_state_that_is_not_believed_stands_where_it_claims_to_be_as_new_as_the_newest_believed() -> None:
    for other in (STRANGER, None):
        assert claimed(judged(state(7), state(8, by=other))) == [8]
        assert claimed(judged(state(7), state(7, by=other))) == [7]
        assert claimed(judged(state(7), state(6, by=other))) == []
        assert claimed(judged(state(6, by=other))) == [6]  # compaction took what was believed
    assert judged(state(7), state(8, by=STRANGER)).newest[LINE].event.generation == 7


def test_what_a_believed_state_came_after_stands_no_longer_whatever_it_claimed() -> None:
    assert claimed(judged(state(7), state(8, by=STRANGER), state(9))) == []
    assert claimed(judged(state(7), state(2**62, by=STRANGER), state(9))) == []
    assert claimed(judged(state(7), state(8, by=STRANGER), state(6))) == [8]  # an old one that was sent again
    assert newest_unknown(LINE, judged(state(7))) == ""


def test_what_says_nothing_of_the_line_but_is_kept_in_its_place_stands_too() -> None:
    garbage = Undecodable(LINE, "policy-rollouts 'line' at 4", "no Avro")
    assert claimed(judged(state(7), garbage)) == [None]
    assert claimed(judged(garbage, state(7))) == []
    assert "policy-rollouts 'line' at 4: no Avro" in newest_unknown(LINE, judged(garbage))
    misplaced = judged(state(7), state(9, key="other"))
    assert (claimed(misplaced), claimed(misplaced, "other")) == ([], [None])
    assert "'other', and is 'line'" in newest_unknown("other", misplaced)


def test_who_signed_which_generation_and_what_to_do_is_said() -> None:
    told = newest_unknown(LINE, judged(state(7), *(state(n, by=STRANGER) for n in (8, 9, 10, 11, 11))))
    assert told.startswith(
        f"the newest rollout of line may be one that is not believed here: generation 11 (it is signed by key "
        f"{STRANGER.key_id}, which KEYS lacks (has {OPERATOR.key_id})); generation 10 ("
    )
    for part in (
        "and 1 more; generation 7 is the newest that is.",
        "SOP_POLICIES__OPERATOR_KEYS;",
        "--over-unbel",
    ):
        assert part in told
    assert "; nothing else is." in newest_unknown(LINE, judged(state(8, by=STRANGER)))


@pytest.mark.parametrize("claims", [(), (8,), (8, 20), (None,), (2**62,), (2**63 - 1, 8)])
def test_over_what_is_not_believed_a_generation_is_above_all_that_robots_may_know(
    claims: tuple[int | None, ...],
) -> None:
    found = [Unbelieved(claim, "forged") for claim in claims]
    over = generation_over(found, None, NOW)
    assert over == NOW.timestamp()
    # Somebody wrote over it before, and more orders than seconds went by: these are above the clock, and count.
    later = state(over + 100).event
    assert generation_over(found, later, NOW) == over + 100
    assert generation_over([*found, Unbelieved(over + 100, "lacking key")], None, NOW) == over + 100


def test_going_on_from_a_generation_is_the_same_change_one_above_it() -> None:
    by = Change("ada", "forged", NOW)
    first = going_on_from(41, rollout.rollback(LINE, 4), LINE)(None, by)
    assert first.model_copy(update={"generation": 1, "restored": None}) == rollout.rollback(LINE, 4)(
        None, by
    ).model_copy(update={"restored": None})
    assert first.restored is not None
    assert (first.generation, first.restored.generation) == (42, 42)
    pinned = going_on_from(99, rollout.pin(LINE, "arm-1", 2), LINE)(first, by)
    assert (pinned.generation, pinned.mode, pinned.current, len(pinned.pins)) == (100, RolloutMode.HOLD, 4, 1)
