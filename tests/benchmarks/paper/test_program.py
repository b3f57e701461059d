"""What is run, and what makes a result another one."""

from dataclasses import fields, replace

import pytest
from pydantic import create_model

from benchmarks.paper import program
from benchmarks.paper.frozen import PROGRAM, QUICK, TUNING
from benchmarks.paper.program import (
    DECIDING,
    HG_DAGGER,
    HUMAN,
    LEARNER_DECIDING,
    NOT_DECIDING,
    PRIVILEGED,
    RECAP,
    Base,
    Program,
    Run,
    Unit,
)
from examples.metaworld.settings import FleetSettings
from infra.sections import LearnerSettings


@pytest.mark.parametrize("planned", [PROGRAM, QUICK], ids=["full", "quick"])
def test_a_unit_comes_once_has_a_name_of_its_own_and_table_1_comes_first(planned: Program) -> None:
    units = planned.units()
    assert len(units) == len(set(units)) == len({unit.name for unit in units})
    first = list(planned.table1())
    assert units[: len(first)] == first
    assert units[0] == planned.base


def test_the_programme_is_as_large_as_it_says() -> None:
    assert len(PROGRAM.fleet_seeds(HUMAN)) >= 10
    assert len(PROGRAM.fleet_seeds(PRIVILEGED)) == len(PROGRAM.fewer_seeds) >= 5
    assert PROGRAM.fleet.evaluation_episodes >= 200
    assert 5 <= PROGRAM.evaluate_every <= 15
    assert PROGRAM.base_seed not in PROGRAM.seeds
    assert set(TUNING.seeds).isdisjoint(PROGRAM.seeds)
    assert TUNING.base_seed != PROGRAM.base_seed
    assert TUNING.base_seed not in TUNING.seeds
    assert TUNING.fleet.evaluation_seed != PROGRAM.fleet.evaluation_seed
    assert PROGRAM.evaluate_every % PROGRAM.fleet.interval_minutes == 0


def test_tables_1_and_2_have_one_base() -> None:
    runs = [unit for unit in PROGRAM.units(["table1", "table2"]) if isinstance(unit, Run)]
    assert {replace(run.base, algorithm=HG_DAGGER) for run in runs} == {PROGRAM.base}


def test_no_setting_of_the_followable_rule_compares_commands() -> None:
    assert PROGRAM.rules[HUMAN].command_gap > 4  # two commands are at most 4 apart
    assert PROGRAM.rules[PRIVILEGED].command_gap < 4


def test_a_run_takes_as_many_gradient_steps_however_often_it_publishes() -> None:
    steps = {
        settings.updates_per_interval * settings.intervals
        for run in (
            PROGRAM.offline_run(HG_DAGGER, 1),
            PROGRAM.fleet_run(1, HUMAN, 1),
            PROGRAM.fleet_run(4, HUMAN, 1),
        )
        for settings in [PROGRAM.settings(run)]
    }
    assert len(steps) == 1
    assert PROGRAM.settings(PROGRAM.offline_run(RECAP, 1)).intervals == 2


def test_sop_s_arms_draw_with_sop_s_sampler_and_offline_ones_with_fixed_shares() -> None:
    for unit in PROGRAM.units():
        wanted = "adaptive" if isinstance(unit, Run) and not unit.arm.startswith("offline") else "fixed"
        assert PROGRAM.learner(unit)["SOP_LEARNER__MIXING"] == wanted, unit.name
        assert PROGRAM.learner_settings(unit).mixing == wanted


def test_the_offline_arm_of_table_3_takes_as_many_gradient_steps_as_the_online_one() -> None:
    run = PROGRAM.settings(PROGRAM.fleet_run(4, HUMAN, 1))
    online = PROGRAM.settings(PROGRAM.base).pretrain_steps + run.updates_per_interval * run.intervals
    assert PROGRAM.learner_settings(Base(PROGRAM.base.demonstrations, PROGRAM.matched, 1)).pretrain_steps == online


def test_recap_is_judged_with_guidance_as_in_its_paper() -> None:
    fleet = PROGRAM.settings(PROGRAM.online_run(RECAP, 1))
    assert fleet.guidance == 1.0
    assert 1.5 <= fleet.judged_guidance <= 2.5


def test_whatever_decides_a_result_changes_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    run = PROGRAM.fleet_run(2, HUMAN, 1)
    others = [
        replace(PROGRAM, fleet=replace(PROGRAM.fleet, learning_rate=1e-5)),
        replace(PROGRAM, base_seed=PROGRAM.base_seed + 1),
        replace(PROGRAM, evaluate_every=PROGRAM.evaluate_every * 2),
        replace(PROGRAM, fleet=replace(PROGRAM.fleet, mixing="fixed")),
        replace(PROGRAM, fleet=replace(PROGRAM.fleet, judged_guidance=2.0)),
    ]
    same = replace(PROGRAM, seeds=range(1, 3), threshold=0.5, seconds=1.0)
    assert same.digest(run) == PROGRAM.digest(run)
    digests = {other.digest(run) for other in [PROGRAM, *others]}
    digests |= {PROGRAM.digest(unit) for unit in (PROGRAM.fleet_run(2, PRIVILEGED, 1), Base(8), Base(8, 1, 1))}
    assert len(digests) == 1 + len(others) + 3
    monkeypatch.setattr(program, "PROTOCOL", program.PROTOCOL + 1)
    assert PROGRAM.digest(run) not in digests
    assert PROGRAM.digest(PROGRAM.base) not in digests


def test_a_default_of_the_learner_that_changes_makes_results_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    units: list[Unit] = [PROGRAM.fleet_run(2, HUMAN, 1), PROGRAM.base, replace(PROGRAM.base, algorithm=RECAP)]
    before = [PROGRAM.digest(unit) for unit in units]
    other = create_model("Other", __base__=LearnerSettings, recap_dropout=(float, 0.2))
    monkeypatch.setattr(program, "LearnerSettings", other)
    assert all(PROGRAM.digest(unit) != old for unit, old in zip(units, before, strict=True))


def test_of_each_setting_of_the_learner_it_is_known_whether_it_decides() -> None:
    known = set(LEARNER_DECIDING) | NOT_DECIDING
    assert set(LEARNER_DECIDING).isdisjoint(NOT_DECIDING)
    assert set(LearnerSettings.model_fields) <= known, "new settings: see LEARNER_DECIDING"
    assert set(LEARNER_DECIDING) <= set(LearnerSettings.model_fields)


def test_what_has_no_part_in_the_digest_has_its_default() -> None:
    plain = FleetSettings()
    others = {field.name for field in fields(FleetSettings)} - set(DECIDING) - {"patience"}  # wall seconds
    assert {name: getattr(PROGRAM.fleet, name) for name in others} == {n: getattr(plain, n) for n in others}
