"""The frozen settings of the reported runs, and those of the small program that tests run.

Chosen on `tuning_seeds`, and not changed after a reported seed was run: results carry a digest of all that is here.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.paper.program import HUMAN, PRIVILEGED, Program
from examples.metaworld.expert import TakeoverRule
from examples.metaworld.settings import FleetSettings
from examples.metaworld.tasks import Task

# Nobody compares commands here: the object was dropped, or the episode is overdue.
_NEVER = 1e9

TASKS = (
    Task("pick-place-v3", "Pick up the puck and hold it at the goal.", 0.07, 58),
    Task("push-v3", "Push the puck along the table to the goal.", 0.05, 70),
    Task("coffee-push-v3", "Push the mug under the coffee machine.", 0.07, 62),
    Task("sweep-v3", "Sweep the block off the table.", 0.05, 104),
    Task("coffee-pull-v3", "Pull the mug away from the coffee machine.", 0.07, 88),
    Task("soccer-v3", "Push the ball into the goal.", 0.07, 82),
    Task("pick-out-of-hole-v3", "Pick the puck out of the hole.", 0.07, 145),
    Task("plate-slide-back-side-v3", "Slide the plate out of the cabinet, to the side.", 0.07, 51),
)

PROGRAM = Program(
    fleet=FleetSettings(
        policy="paper",
        tasks=TASKS,
        minutes=180.0,
        interval_minutes=5.0,
        evaluations_per_task=25,
        pretrain_steps=3000,
        updates_per_interval=150,
        ema_half_life=150.0,
        learning_rate=5e-4,
        patience=1800.0,
    ),
    base_seed=10,
    rules={
        HUMAN: TakeoverRule(command_gap=_NEVER, hand_steps=200),
        PRIVILEGED: TakeoverRule(hand_steps=200),
    },
    fleets=(1, 2, 4),
    threshold=0.8,
    seeds=range(1, 11),
    fewer_seeds=range(1, 6),
    tuning_seeds=range(101, 105),
    evaluate_every=15.0,
    sizes=(3, 8, 24),
    matched=9,
)

QUICK = replace(
    PROGRAM,
    fleet=replace(
        PROGRAM.fleet,
        tasks=TASKS[:2],
        minutes=10.0,
        interval_minutes=5.0,
        evaluations_per_task=2,
        pretrain_steps=100,
        updates_per_interval=20,
    ),
    fleets=(1, 2),
    seeds=range(1, 3),
    fewer_seeds=range(1, 2),
    evaluate_every=5.0,
    sizes=(1, 2, 3),
    matched=1,
    seconds=60.0,
)
"""Everything of the real program but its size: it shows that the machinery works, and nothing about robots."""
