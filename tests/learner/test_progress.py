from __future__ import annotations

import numpy as np

from learner.progress import Means, mixing
from schemas.events import TrainingMetric


def test_every_draws_share_is_told_with_the_step_that_it_was_drawn_at() -> None:
    nothing = float("nan")
    shares = [np.array(row) for row in ([nothing, 0.0, nothing], [nothing, 0.25, 0.5], [nothing, 0.75, 0.5])]
    lift, push = mixing(("absent", "lift", "push"), shares, last_step=12)
    assert (lift.task, lift.first_step, lift.online_shares) == ("lift", 10, (0.0, 0.25, 0.75))
    assert (push.task, push.first_step, push.online_shares) == ("push", 11, (0.5, 0.5))


def test_without_draws_there_is_nothing_to_tell() -> None:
    assert mixing(("lift",), [], last_step=3) == ()
    assert Means().told() == ()


def test_of_what_updates_tell_by_name_the_mean_of_the_numbers_is_told() -> None:
    means = Means()
    for named in ({"b": 1.0, "a": 0.5}, {"b": float("inf")}, {"b": 4.0, "c": float("nan")}):
        means.note(named)
    assert means.told() == (TrainingMetric(name="a", value=0.5), TrainingMetric(name="b", value=2.5))
