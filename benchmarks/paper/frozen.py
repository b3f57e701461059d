"""The frozen settings of the reported runs, and those of the small program that tests run.

Each result carries their digest, so a change makes all results stale. They were changed once after reported seeds
had been run: `words.EARLIER`.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.paper.program import HG_DAGGER, HUMAN, PRIVILEGED, Program
from examples.metaworld.expert import TakeoverRule
from examples.metaworld.settings import EVALUATION_SEED, FleetSettings
from examples.metaworld.tasks import Task
from examples.metaworld.world import DEPLOYMENT

# Nobody compares commands here: the object was dropped, or the episode is overdue.
_NEVER = 1e9
# Longer than any episode.
_UNTIL_THE_END = 1000


def _task(name: str, instruction: str, success_radius: float, expert_steps: int) -> Task:
    """An episode is given up after three times the expert's usual number of steps."""
    return Task(name, instruction, success_radius, expert_steps, max_steps=3 * expert_steps)


# Of Meta-World's tasks with one object whose distance to the goal is success: those that the expert solves under
# the disturbances, a cloned policy often does not, and a late takeover can often still save.
TASKS = (
    _task("pick-place-v3", "Pick up the puck and hold it at the goal.", 0.07, 58),
    _task("pick-place-wall-v3", "Carry the puck over the wall to the goal.", 0.07, 108),
    _task("coffee-push-v3", "Push the mug under the coffee machine.", 0.07, 62),
    _task("plate-slide-back-v3", "Slide the plate back out of the cabinet.", 0.07, 77),
    _task("plate-slide-back-side-v3", "Slide the plate out of the cabinet, to the side.", 0.07, 51),
    _task("bin-picking-v3", "Move the cube from one bin to the other.", 0.05, 132),
    _task("pick-out-of-hole-v3", "Pick the puck out of the hole.", 0.07, 145),
    # Stricter than Meta-World, which leaves the height out.
    _task("sweep-into-v3", "Sweep the block into the hole.", 0.05, 64),
)

# Of the first seed of TUNING, four robots, on its base: human steps in episodes that did not fail (of 12,297 in
# all), and steps of the base's demonstrations. Successes have no part in it.
_LABELLED_STEPS, _DEMONSTRATED_STEPS, _DEMONSTRATIONS = 4972, 5136, 8

PROGRAM = Program(
    fleet=FleetSettings(
        policy="paper",
        algorithm=HG_DAGGER,
        tasks=TASKS,
        disturbance=DEPLOYMENT,
        step_seconds=0.4,
        reset_seconds=25.0,
        minutes=180.0,
        interval_minutes=5.0,
        evaluations_per_task=25,
        evaluation_seed=4242,
        pretrain_steps=3000,
        batch_size=128,
        # The paper's form; its α is not said, ours is not tuned: at such losses it stays near one half whatever α.
        mixing="adaptive",
        adaptive_alpha=1.5,
        online_share=0.5,
        chunk=2,
        updates_per_interval=300,
        ema_half_life=300.0,
        learning_rate=5e-4,
        failed_weight=0.0,
        guidance=1.0,
        # The lower end of what arXiv 2511.14759 evaluates with; not tuned.
        judged_guidance=1.5,
        patience=1800.0,
    ),
    base_seed=10,
    rules={
        HUMAN: TakeoverRule(command_gap=_NEVER, hand_steps=_UNTIL_THE_END),
        PRIVILEGED: TakeoverRule(hand_steps=_UNTIL_THE_END),
    },
    fleets=(1, 2, 4),
    threshold=0.8,
    seeds=range(11, 21),
    fewer_seeds=range(11, 16),
    evaluate_every=15.0,
    rollouts=30.0,
    sizes=(3, _DEMONSTRATIONS, 24),
    matched=round(_LABELLED_STEPS / (_DEMONSTRATED_STEPS / _DEMONSTRATIONS)),
)

TUNING = replace(
    PROGRAM,
    base_seed=5,
    fleet=replace(PROGRAM.fleet, evaluation_seed=EVALUATION_SEED),
    seeds=range(1, 5),
    fewer_seeds=range(1, 3),
)
"""What settings are chosen on: other seeds, another base, another fixed set. Never reported.

Until now tuning had the reported base (seed 10), with the other seeds and the other fixed set: tasks, rules, the
learner's rate, batches, averages and `failed_weight` were chosen so. On this base: `matched`.
"""

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
    rules={HUMAN: PROGRAM.rules[HUMAN]},
    fleets=(2,),
    seeds=range(1, 3),
    fewer_seeds=range(1, 2),
    evaluate_every=5.0,
    rollouts=5.0,
    sizes=(1, 2, 3),
    matched=1,
    seconds=60.0,
)
"""Everything of the real program but its size: it shows that the machinery works, and nothing about robots."""
