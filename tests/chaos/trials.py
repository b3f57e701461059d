"""Schedules made by hand: what one of them does not show of a broken materializer, another does."""

from __future__ import annotations

from tests.chaos.schedule import ROUNDS, Fault, MemberPlan, Schedule
from tests.chaos.timing import STALL


def _traffic(*kinds: str) -> tuple[Fault, ...]:
    return tuple(Fault(kind, 0, ROUNDS) for kind in kinds)


KILLED = Schedule(
    seed=-1,
    events=2_500,
    robots=12,
    members=(MemberPlan(die_at="before-commit", nth=6), MemberPlan(die_at="before-commit", nth=4)),
    faults=_traffic("resend"),
    pace=0.1,
    in_step=True,
)
"""Members die just before they commit, while older episodes are open and newer ones were announced."""

ALONE = Schedule(
    seed=-3,
    events=400,
    robots=1,
    members=(MemberPlan(die_at="before-commit", nth=2),),
    faults=(),
    pace=0.1,
    in_step=True,
)
"""The only robot's episode is announced in a commit that does not happen: no older episode holds offsets back."""

DISTURBED = Schedule(
    seed=-2,
    events=2_500,
    robots=6,
    members=(),
    faults=(
        *_traffic("resend", "late", "poison", "label"),
        Fault("reorder", 0, ROUNDS, "robot-steps"),
        Fault("dead-letter-failure", 0, ROUNDS),
    ),
    pace=0.2,
)
"""Nobody dies: records come again, too late, behind those of other topics, or unusable; dead-letters fails."""

UNANSWERED = Schedule(
    seed=-4,
    events=1_500,
    robots=6,
    members=(),
    faults=(Fault("s3-stall", 3, 6, "hole", STALL),),
    pace=0.3,
)
"""For a while no request to the object store is ever answered; those that are made later are."""

CAUGHT_BY = {
    "forget-open-episodes": KILLED,
    "no-bound-on-requests": UNANSWERED,
    "commit-too-early": ALONE,
    "no-forward-read": KILLED,
    "no-union": DISTURBED,
    "skip-on-dead-letter-failure": DISTURBED,
    "no-dedupe": DISTURBED,
    "truncate-on-a-later-start": DISTURBED,
}
"""Mutation to the schedule that must show it."""
