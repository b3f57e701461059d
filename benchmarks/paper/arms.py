"""Tables 2 and 3: methods, and bases of several sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.paper import plot, stats
from benchmarks.paper.effects import Results, speed
from benchmarks.paper.markdown import number, percent, points, sampled, table
from benchmarks.paper.program import HG_DAGGER, HUMAN, RECAP, Base, Program, Unit
from benchmarks.paper.result import Judged

_NAMES = {HG_DAGGER: "HG-DAgger", RECAP: "RECAP"}


def methods(program: Program, done: Results, folder: Path) -> str:
    """Table 2, and its picture."""
    arms = _arms(program)
    rows = []
    for name, units in arms.items():
        judged = [done[unit].last for unit in units if unit in done]
        if judged:
            rows.append(
                [
                    name,
                    f"{len(judged)} of {len(units)}",
                    _success(judged, alone=len(units) == 1),
                    number(stats.mean([speed(program, one) for one in judged])),
                    number(stats.mean([speed(program, one) * one.success for one in judged])),
                ]
            )
    header = ["method", "seeds", "success", "episodes/h", "successes/h"]
    parts = ["## Table 2: methods\n", _note(program, done), ""]
    if not rows:
        return "\n".join([*parts, "Nothing to show yet.\n"])
    parts += [table(header, rows), "", _at_work(program, done), _tasks(program, done, arms)]
    parts += _picture(folder, "paper-methods.png", arms, done, "success on the fixed set, by method")
    return "\n".join(parts)


def _arms(program: Program) -> dict[str, list[Unit]]:
    arms: dict[str, list[Unit]] = {"base": [program.base]}
    for algorithm, name in _NAMES.items():
        seeds = program.fewer_seeds
        if algorithm != HG_DAGGER:
            arms[f"base of {name}"] = [replace(program.base, algorithm=algorithm)]
        arms[f"{name}, offline, two iterations"] = [program.offline_run(algorithm, seed) for seed in seeds]
        arms[f"SOP + {name}"] = [program.online_run(algorithm, seed) for seed in seeds]
    return arms


def _note(program: Program, done: Results) -> str:
    later = program.online_updates // 2
    return f"""{max(program.fleets)} robots, {program.fleet.minutes / 60:g} h each, with the rule that a human
could follow. The last version alone on the fixed set. Episodes an hour are those of one robot that end, failures
among them, resets not counted (SOP's throughput); successes an hour are those of them that succeed (that of
RECAP's paper). A version that fails takes longest, for an episode is given up late: both grow with success.

Offline, the fleet runs half of the time with one version, then the other half with what was trained on the first,
with as many gradient steps in all. Robot-hours and gradient steps are those of SOP; two things are not. Offline
training takes no time: its last {later} steps come after the last hour and see all of its data, where SOP's last
{program.fleet.updates_per_interval} do. And SOP's arms draw with its adaptive sampler, which is a part of SOP;
offline a fixed {program.fleet.online_share:.0%} of each batch is data of the fleet (how the paper's offline
methods mix it does not say).

RECAP's base has seen {program.rollouts:g} more minutes, in which the base played alone: its value function is
frozen afterwards, in both arms, and must know failures. {_seen(program, done)} RECAP's policies play with a
guidance of β = {program.fleet.guidance:g} at work and are judged with β = {program.fleet.judged_guidance:g} (the
paper: 1.0, and 1.5 to 2.5)."""


def _seen(program: Program, done: Results) -> str:
    result = done.get(replace(program.base, algorithm=RECAP))
    if result is None or result.outcomes is None:
        return ""
    good, bad = (sum(pair[kind] for pair in result.outcomes.values()) for kind in (0, 1))
    without = [task for task, (_, failed) in result.outcomes.items() if not failed]
    missing = f" (none in {', '.join(without)})" if without else ""
    return f"It was fitted on {good} successes and {bad} failures{missing}."


def _at_work(program: Program, done: Results) -> str:
    """How the fleet did while it worked, which nobody planned to look at."""
    rows, differences = [], []
    for algorithm, name in _NAMES.items():
        pairs = [
            (done[online], done[offline])
            for seed in program.fewer_seeds
            if (online := program.online_run(algorithm, seed)) in done
            and (offline := program.offline_run(algorithm, seed)) in done
        ]
        worked = [(one.online, other.online) for one, other in pairs if one.online and other.online]
        if not worked:
            continue
        for arm, place in ((f"{name}, offline, two iterations", 1), (f"SOP + {name}", 0)):
            found = [pair[place] for pair in worked]
            alone = stats.mean([one.alone / one.episodes for one in found])
            human = stats.mean([float(one.human_steps) for one in found])
            half = [
                judged.success
                for pair in pairs
                for judged in pair[place].judged
                if judged.minute == program.fleet.minutes / 2
            ]
            middle = percent(stats.mean(half)) if half else "-"
            rows.append([arm, str(len(found)), percent(alone), number(human), middle])
        more = stats.mean([one.alone / one.episodes - other.alone / other.episodes for one, other in worked])
        fewer = stats.mean([one.human_steps / other.human_steps - 1 for one, other in worked])
        differences.append(
            f"- SOP + {name} less offline, seed by seed: {points(more)} points solved alone at work, "
            f"{100 * fewer.value:+.0f} % human steps."
        )
    if not rows:
        return ""
    header = ["method", "seeds", "solved alone at work", "human steps", "success at half time"]
    told = "\n".join(differences)
    return f"Looked at afterwards: how the fleet did while it worked.\n\n{table(header, rows)}\n\n{told}\n"


def _tasks(program: Program, done: Results, arms: Mapping[str, Sequence[Unit]]) -> str:
    """Success by task, so that what is forgotten is seen."""
    found = {name: [done[unit].last for unit in units if unit in done] for name, units in arms.items()}
    found = {name: judged for name, judged in found.items() if judged and all(one.by_task for one in judged)}
    rows = [
        [
            task.name,
            *(f"{100 * stats.mean([one.by_task[task.name] for one in judged]).value:.0f}" for judged in each),
        ]
        for task in program.fleet.tasks
        if (each := list(found.values()))
    ]
    return (
        "Success by task, in percent, means over seeds:\n\n" + table(["task", *found], rows) + "\n"
        if found
        else ""
    )


def bases(program: Program, done: Results, folder: Path) -> str:
    """Table 3, and its picture."""
    rows, arms = [], dict[str, list[Unit]]()
    for size in program.sizes:
        base = Base(size)
        runs: list[Unit] = [program.sized_run(size, seed) for seed in program.fewer_seeds]
        arms |= {f"base, {size} a task": [base], f"SOP on {size} a task": runs}
        found = [done[run].last for run in runs if run in done]
        if base in done or found:
            rows.append(
                [
                    f"{size} a task",
                    str(done[base].demonstration_steps) if base in done else "-",
                    _success([done[base].last], alone=True) if base in done else "-",
                    _success(found, alone=False) if found else "-",
                    f"{len(found)} of {len(program.fewer_seeds)}",
                ]
            )
    note = f"""SOP's learner and fleet are those of table 2. All bases take {program.fleet.pretrain_steps} gradient
steps, whatever they are trained on; there is one of each size."""
    header = ["demonstrations", "steps", "base", f"SOP, {program.fleet.minutes / 60:g} h", "seeds"]
    parts = ["## Table 3: pre-training\n", note, ""]
    parts += [table(header, rows) if rows else "Nothing to show yet.", ""]
    extra: list[Unit] = [Base(program.base.demonstrations, program.matched, seed) for seed in program.fewer_seeds]
    arms["more demonstrations"] = extra
    parts.append(_matched(program, done, extra))
    if rows:
        parts += _picture(folder, "paper-bases.png", arms, done, "success on the fixed set, by base")
    return "\n".join(parts)


def _matched(program: Program, done: Results, extra: Sequence[Unit]) -> str:
    found = [done[base] for base in extra if base in done]
    runs = [program.fleet_run(max(program.fleets), HUMAN, seed) for seed in program.fewer_seeds]
    online = [done[run] for run in runs if run in done]
    if not found or not online or program.base not in done:
        return f"Offline against online data: {len(found)} of {len(extra)} offline seeds run.\n"
    before = done[program.base]
    more = number(stats.mean([float(r.demonstration_steps - before.demonstration_steps) for r in found]))
    labelled = stats.mean([float(r.online.labelled_steps) for r in online if r.online is not None])
    human = stats.mean([float(r.online.human_steps) for r in online if r.online is not None])
    updates = f"{program.fleet.pretrain_steps + program.online_updates}"
    base = _success([before.last], alone=True)
    rows = [
        ["base", "0", "0", f"{program.fleet.pretrain_steps}", base, "1"],
        [
            *("offline: demonstrations", more, more, updates),
            _success([r.last for r in found], alone=False),
            str(len(found)),
        ],
        [
            *("online: SOP's corrections", number(human), number(labelled), updates),
            _success([r.last for r in online], alone=False),
            str(len(online)),
        ],
    ]
    header = [
        "data beyond the base's",
        "human steps given",
        "trained on",
        "gradient steps in all",
        "success",
        "seeds",
    ]
    note = f"""Offline against online data, at matched labelled steps and gradient steps. Matched is what is
trained on: of {human.value:.0f} human steps of a run {labelled.value:.0f} are in episodes that did not fail. Three
things differ besides where the data come from. More demonstrations are undisturbed, as the base's are, and
corrections come from the disturbed world that also judges; the offline arm is trained in one piece, its learning
rate falling over all steps, where the online one begins with the base and its rate stays at
{program.fleet.learning_rate:g} afterwards; and nobody trained the base's own demonstrations for as many steps, so
that the offline row holds what longer training alone would give."""
    return f"{note}\n\n{table(header, rows)}\n"


def _success(judged: Sequence[Judged], *, alone: bool) -> str:
    """Over seeds; of what there is only one of, over its episodes."""
    if alone:
        return sampled(judged[0].successes, judged[0].episodes)
    return percent(stats.mean([one.success for one in judged]))


def _picture(folder: Path, name: str, arms: Mapping[str, Sequence[Unit]], done: Results, title: str) -> list[str]:
    found = {arm: [done[unit].last.success for unit in units if unit in done] for arm, units in arms.items()}
    plot.arms(folder / name, {arm: values for arm, values in found.items() if values}, title)
    return [f"![{title}]({name})\n"]
