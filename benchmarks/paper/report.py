"""From results to `docs/paper.md`: tables, intervals, pictures and what must be said about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.paper import plot, stats, words
from benchmarks.paper.program import HG_DAGGER, HUMAN, RECAP, Base, Program, Run, Unit
from benchmarks.paper.result import Judged, Result, load

Results = Mapping[Unit, Result]


def write(program: Program, folder: Path, document: Path) -> None:
    """Write the document, and the pictures beside it; what has not been run is said to be missing.

    Raises:
        StaleResult: a result was made with other settings.
    """
    done = load(folder, program, program.units())
    parts = [
        words.heading(program, done),
        *(_fleet(program, done, rule, document.parent) for rule in program.rules),
        _methods(program, done),
        _bases(program, done),
        words.economics(program, done),
        words.differences(program),
    ]
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(words.flow("\n".join(part.rstrip() + "\n" for part in parts if part)))


def curve(done: Results, run: Run) -> list[tuple[float, float]]:
    """Success by minute; the base's own evaluation is minute 0, for it is the same for all runs."""
    base = done[run.base].last
    return [(0.0, base.success), *((judged.minute, judged.success) for judged in done[run].judged)]


def _fleet(program: Program, done: Results, rule: str, folder: Path) -> str:
    curves = {
        robots: {
            seed: curve(done, run)
            for seed in program.fleet_seeds(rule)
            if (run := program.fleet_run(robots, rule, seed)) in done and program.base in done
        }
        for robots in program.fleets
    }
    title = f"## Table 1{'a' if rule == HUMAN else 'b'}: size of the fleet, {words.RULES[rule]}\n"
    counted = [
        f"{len(found)} of {len(program.fleet_seeds(rule))} ({robots} {'robot' if robots == 1 else 'robots'})"
        for robots, found in curves.items()
    ]
    counts = f"Seeds run: {', '.join(counted)}."
    if not any(curves.values()):
        return f"{title}\n{counts} Nothing to show yet.\n"
    hours = program.fleet.minutes / 60
    goal = f"{100 * program.threshold:.0f} %"
    header = [
        "robots",
        "seeds",
        f"success at {hours:g} h",
        f"minutes to {goal}",
        "speed-up",
        "seeds that reach it",
    ]
    rows = []
    for robots, found in curves.items():
        if not found:
            continue
        at_end = stats.mean([points[-1][1] for points in found.values()])
        reached = sum(stats.time_to(points, program.threshold) < stats.NEVER for points in found.values())
        faster = stats.speed_up(curves[program.fleets[0]], found, program.threshold)
        rows.append(
            [
                str(robots),
                str(len(found)),
                _percent(at_end),
                _interval(stats.time_to_threshold(found, program.threshold), f"> {program.fleet.minutes:.0f}"),
                "1" if robots == program.fleets[0] else _interval(faster, "∞"),
                f"{reached} of {len(found)}",
            ]
        )
    name = f"paper-fleet-{rule}.png"
    plot.curves(folder / name, curves, program.threshold, f"{words.RULES[rule]}")
    parts = [
        title,
        counts,
        "",
        _table(header, rows),
        "",
        _paired(program, curves),
        _effort(program, done, rule),
        f"![success over simulated time]({name})\n",
        _by_minute(curves),
    ]
    return "\n".join(parts)


def _paired(program: Program, curves: Mapping[int, Mapping[int, stats.Curve]]) -> str:
    first, lines = curves[program.fleets[0]], []
    for robots in program.fleets[1:]:
        common = sorted(set(first) & set(curves[robots]))
        if not common:
            continue
        ends = stats.mean([curves[robots][s][-1][1] - first[s][-1][1] for s in common])
        means = stats.mean([_average(curves[robots][s]) - _average(first[s]) for s in common])
        lines.append(
            f"- {robots} robots less {program.fleets[0]}, seed by seed ({len(common)} seeds): at the end "
            f"{_points(ends)}, averaged over the time {_points(means)}."
        )
    return "\n".join([*lines, ""])


def _average(points: stats.Curve) -> float:
    later = [success for minute, success in points if minute > 0]
    return sum(later) / len(later)


def _effort(program: Program, done: Results, rule: str) -> str:
    header = ["robots", "episodes", "solved alone", "with help", "human steps", "trained on", "takeovers"]
    header += ["gradient steps", "online share drawn"]
    rows = []
    for robots in program.fleets:
        runs = [program.fleet_run(robots, rule, seed) for seed in program.fleet_seeds(rule)]
        found = [done[run].online for run in runs if run in done]
        online = [one for one in found if one is not None]
        if not online:
            continue
        n, episodes = len(online), sum(one.episodes for one in online)
        shares = [one.online_share for one in online]
        rows.append(
            [
                str(robots),
                f"{episodes / n:.0f}",
                f"{sum(one.alone for one in online) / episodes:.0%}",
                f"{sum(one.successes for one in online) / episodes:.0%}",
                f"{sum(one.human_steps for one in online) / n:.0f} "
                f"({sum(one.human_steps for one in online) / sum(one.steps for one in online):.0%})",
                f"{sum(one.labelled_steps for one in online) / n:.0f}",
                f"{sum(one.interventions for one in online) / n:.0f}",
                str(program.online_updates),
                f"{sum(mean for _, mean, _ in shares) / n:.2f} "
                f"({min(low for low, _, _ in shares):.2f} to {max(high for _, _, high in shares):.2f})",
            ]
        )
    return "What a run consists of (means over seeds):\n\n" + _table(header, rows) + "\n"


def _by_minute(curves: Mapping[int, Mapping[int, stats.Curve]]) -> str:
    found = {robots: list(each.values()) for robots, each in curves.items() if each}
    if not found:
        return ""
    at = [minute for minute, _ in next(iter(found.values()))[0]]
    rows = [
        [f"{robots}", *(f"{100 * success:.1f}" for _, success in stats.mean_curve(each))]
        for robots, each in found.items()
    ]
    return "Mean success (percent) by simulated minute:\n\n" + _table(["robots", *(f"{m:.0f}" for m in at)], rows)


def _methods(program: Program, done: Results) -> str:
    seeds = program.fewer_seeds
    arms: dict[str, list[Unit]] = {"base": [program.base]}
    for algorithm, name in ((HG_DAGGER, "HG-DAgger"), (RECAP, "RECAP")):
        if algorithm != HG_DAGGER:
            arms[f"base of {name}"] = [replace(program.base, algorithm=algorithm)]
        arms[f"{name}, off line, two iterations"] = [program.offline_run(algorithm, seed) for seed in seeds]
        arms[f"SOP + {name}"] = [program.online_run(algorithm, seed) for seed in seeds]
    rows = []
    for name, units in arms.items():
        judged = [done[unit].last for unit in units if unit in done]
        if judged:
            rows.append(
                [
                    name,
                    f"{len(judged)} of {len(units)}",
                    _percent(stats.mean([one.success for one in judged])),
                    _number(stats.mean([_episodes_an_hour(program, one) for one in judged])),
                    _number(stats.mean([_episodes_an_hour(program, one) * one.success for one in judged])),
                ]
            )
    note = f"""{max(program.fleets)} robots, {program.fleet.minutes / 60:g} h each, with the rule that a human
could follow. The last version alone on the fixed set; resets are not in the hours. Off line, the fleet runs
half of the time with one version, then the other half with what was trained on the first, with as many gradient
steps in all. SOP's arms draw with its adaptive sampler, which is a part of SOP; off line a fixed
{program.fleet.online_share:.0%} of each batch is data of the fleet (how the paper's offline methods mix it does
not say). RECAP's base has seen {program.rollouts:g} more minutes, in which the base played alone: its value
function is frozen afterwards and must know failures. RECAP's policies play with a guidance of
β = {program.fleet.guidance:g} at work and are judged with β = {program.fleet.judged_guidance:g} (the paper: 1.0,
and 1.5 to 2.5).
{_seen(program, done)}"""
    header = ["method", "seeds", "success", "episodes/h", "successes/h"]
    return f"## Table 2: methods\n\n{note}\n\n{_table(header, rows) if rows else 'Nothing to show yet.'}\n"


def _seen(program: Program, done: Results) -> str:
    result = done.get(replace(program.base, algorithm=RECAP))
    if result is None or result.outcomes is None:
        return ""
    good, bad = (sum(pair[kind] for pair in result.outcomes.values()) for kind in (0, 1))
    without = [task for task, (_, failed) in result.outcomes.items() if not failed]
    missing = f" (none in {', '.join(without)})" if without else ""
    return f"It was fitted on {good} successes and {bad} failures{missing}."


def _episodes_an_hour(program: Program, judged: Judged) -> float:
    return judged.episodes / (judged.steps * program.fleet.step_seconds / 3600)


def _bases(program: Program, done: Results) -> str:
    rows = []
    for size in program.sizes:
        base = Base(size)
        runs = [program.sized_run(size, seed) for seed in program.fewer_seeds]
        found = [done[run].last.success for run in runs if run in done]
        if base in done or found:
            rows.append(
                [
                    f"{size} a task",
                    str(done[base].demonstration_steps) if base in done else "-",
                    f"{100 * done[base].last.success:.1f} %" if base in done else "-",
                    _percent(stats.mean(found)) if found else "-",
                    f"{len(found)} of {len(program.fewer_seeds)}",
                ]
            )
    header = ["demonstrations", "steps", "base", "SOP, 3 h", "seeds"]
    more = _matched(program, done)
    return "\n".join(
        ["## Table 3: pre-training\n", _table(header, rows) if rows else "Nothing to show yet.", "", more]
    )


def _matched(program: Program, done: Results) -> str:
    extra = [Base(program.base.demonstrations, program.matched, seed) for seed in program.fewer_seeds]
    found = [done[base] for base in extra if base in done]
    runs = [program.fleet_run(max(program.fleets), HUMAN, seed) for seed in program.fewer_seeds]
    online = [done[run] for run in runs if run in done]
    if not found or not online or program.base not in done:
        return f"Offline against online data: {len(found)} of {len(extra)} offline seeds run.\n"
    before = done[program.base]
    more = stats.mean([float(r.demonstration_steps - before.demonstration_steps) for r in found])
    labelled = stats.mean([float(r.online.labelled_steps) for r in online if r.online is not None])
    human = stats.mean([float(r.online.human_steps) for r in online if r.online is not None])
    updates = f"{program.fleet.pretrain_steps + program.online_updates}"
    rows = [
        ["base", "0", f"{program.fleet.pretrain_steps}", f"{100 * before.last.success:.1f} %", "1"],
        [
            "offline: demonstrations",
            _number(more),
            updates,
            _percent(stats.mean([r.last.success for r in found])),
            str(len(found)),
        ],
        [
            "online: SOP's corrections",
            _number(labelled),
            updates,
            _percent(stats.mean([r.last.success for r in online])),
            str(len(online)),
        ],
    ]
    header = ["data beyond the base's", "labelled steps trained on", "gradient steps in all", "success", "seeds"]
    note = f"""Offline against online data, at matched labelled steps and gradient steps. Labelled steps are those
that are trained on: of {human.value:.0f} human steps of a run {labelled.value:.0f} are in episodes that did not
fail.
The offline arm is trained in one piece, its learning rate falling over all steps; the online one begins with the
base, and its rate stays at {program.fleet.learning_rate:g} afterwards."""
    return f"{note}\n\n{_table(header, rows)}\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(mean: stats.Mean) -> str:
    return f"{100 * mean.value:.1f} %" + ("" if math.isnan(mean.half) else f" ± {100 * mean.half:.1f}")


def _points(mean: stats.Mean) -> str:
    return f"{100 * mean.value:+.1f} points" + ("" if math.isnan(mean.half) else f" ± {100 * mean.half:.1f}")


def _number(mean: stats.Mean) -> str:
    return f"{mean.value:.0f}" + ("" if math.isnan(mean.half) else f" ± {mean.half:.0f}")


def _interval(found: stats.Interval, never: str) -> str:
    def say(value: float) -> str:
        if math.isnan(value):
            return "-"
        return never if value == stats.NEVER else f"{value:.0f}" if value >= 10 else f"{value:.1f}"

    if math.isnan(found.low):
        return say(found.value)
    return f"{say(found.value)} [{say(found.low)}, {say(found.high)}]"
