"""What is run, and what makes a result another one."""

from dataclasses import fields, replace

import pytest

from benchmarks.paper.frozen import PROGRAM, QUICK, TUNING
from benchmarks.paper.program import DECIDING, HG_DAGGER, HUMAN, PRIVILEGED, RECAP, Base, Program, Run
from examples.metaworld.settings import FleetSettings


@pytest.mark.parametrize("program", [PROGRAM, QUICK], ids=["full", "quick"])
def test_a_unit_comes_once_has_a_name_of_its_own_and_table_1_comes_first(program: Program) -> None:
    units = program.units()
    assert len(units) == len(set(units)) == len({unit.name for unit in units})
    first = list(program.table1())
    assert units[: len(first)] == first
    assert units[0] == program.base


def test_the_programme_is_as_large_as_it_says() -> None:
    assert len(PROGRAM.seeds) >= 10
    assert len(PROGRAM.fewer_seeds) >= 5
    assert PROGRAM.fleet.evaluation_episodes >= 200
    assert 5 <= PROGRAM.evaluate_every <= 15
    assert PROGRAM.base_seed not in PROGRAM.seeds
    assert set(TUNING.seeds).isdisjoint(PROGRAM.seeds)
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


def test_whatever_decides_a_result_changes_its_digest() -> None:
    run = PROGRAM.fleet_run(2, HUMAN, 1)
    others = [
        replace(PROGRAM, fleet=replace(PROGRAM.fleet, learning_rate=1e-5)),
        replace(PROGRAM, base_seed=PROGRAM.base_seed + 1),
        replace(PROGRAM, evaluate_every=PROGRAM.evaluate_every * 2),
    ]
    same = replace(PROGRAM, seeds=range(1, 3), threshold=0.5, seconds=1.0)
    assert same.digest(run) == PROGRAM.digest(run)
    digests = {program.digest(run) for program in [PROGRAM, *others]}
    digests |= {PROGRAM.digest(unit) for unit in (PROGRAM.fleet_run(2, PRIVILEGED, 1), Base(8), Base(8, 1, 1))}
    assert len(digests) == 1 + len(others) + 3


def test_what_has_no_part_in_the_digest_has_its_default() -> None:
    plain = FleetSettings()
    others = {field.name for field in fields(FleetSettings)} - set(DECIDING) - {"patience"}  # wall seconds
    assert {name: getattr(PROGRAM.fleet, name) for name in others} == {n: getattr(plain, n) for n in others}
