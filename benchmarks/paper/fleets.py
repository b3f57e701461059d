"""Tables 1: fleets of several sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.paper import plot, stats, words
from benchmarks.paper.effects import Results, at_equal_data, curves_of
from benchmarks.paper.markdown import interval, percent, points, table
from benchmarks.paper.program import HUMAN, Program

_Curves = Mapping[int, Mapping[int, stats.Curve]]
# Other thresholds than the paper's.
_MORE_THRESHOLDS = (0.75, 0.85)


def section(program: Program, done: Results, rule: str, folder: Path) -> str:
    """One rule's table, and its picture in `folder`."""
    curves = curves_of(program, done, rule)
    title = f"## Table 1{'a' if rule == HUMAN else 'b'}: size of the fleet, {words.RULES[rule]}\n"
    counted = [
        f"{len(found)} of {len(program.fleet_seeds(rule))} ({_robots(robots)})" for robots, found in curves.items()
    ]
    counts = f"Seeds run: {', '.join(counted)}."
    if not any(curves.values()):
        return f"{title}\n{counts} Nothing to show yet.\n"
    name = f"paper-fleet-{rule}.png"
    plot.curves(folder / name, curves, program.threshold, f"{words.RULES[rule]}")
    parts = [
        title,
        counts,
        "",
        _times(program, curves),
        "",
        _differences(program, curves),
        *([_beside_human(program, done, curves)] if rule != HUMAN else []),
        f"![success over simulated time]({name})\n",
        _by_minute(curves),
        "",
        _looked_at_afterwards(program, curves),
        _effort(program, done, rule),
        _ends(curves),
    ]
    return "\n".join(parts)


def _times(program: Program, curves: _Curves) -> str:
    hours, goal = program.fleet.minutes / 60, f"{100 * program.threshold:.0f} %"
    header = ["robots", "seeds", f"success at {hours:g} h", f"minutes to {goal}", "speed-up", "reached by"]
    rows = []
    for robots, found in curves.items():
        if not found:
            continue
        reached = sum(stats.time_to(one, program.threshold) < stats.NEVER for one in found.values())
        faster = stats.speed_up(curves[program.fleets[0]], found, program.threshold)
        rows.append(
            [
                str(robots),
                str(len(found)),
                percent(stats.mean([one[-1][1] for one in found.values()])),
                _minutes(program, found, program.threshold),
                "1" if robots == program.fleets[0] else interval(faster, "∞"),
                f"{reached} of {len(found)}",
            ]
        )
    return table(header, rows)


def _minutes(program: Program, found: Mapping[int, stats.Curve], threshold: float) -> str:
    return interval(stats.time_to_threshold(found, threshold), f"> {program.fleet.minutes:.0f}")


def _differences(program: Program, curves: _Curves) -> str:
    first, lines = curves[program.fleets[0]], []
    for robots in program.fleets[1:]:
        if told := _less(curves[robots], first):
            lines.append(f"- {robots} robots less {program.fleets[0]}, seed by seed {told}.")
    return "\n".join([*lines, ""])


def _beside_human(program: Program, done: Results, curves: _Curves) -> str:
    """What another rule of taking over makes of the same fleets."""
    lines = [
        f"- {_robots(robots)} with this rule less with table 1a's, seed by seed {told}."
        for robots, found in curves_of(program, done, HUMAN).items()
        if (told := _less(curves[robots], found))
    ]
    return "\n".join([*lines, ""])


def _less(one: Mapping[int, stats.Curve], other: Mapping[int, stats.Curve]) -> str:
    """Differences on the seeds that both have; empty: none."""
    common = sorted(set(one) & set(other))
    if not common:
        return ""
    ends = stats.mean([one[s][-1][1] - other[s][-1][1] for s in common])
    means = stats.mean([_average(one[s]) - _average(other[s]) for s in common])
    return f"({_seeds(len(common))}), in points: at the end {points(ends)}, averaged over the time {points(means)}"


def _average(one: stats.Curve) -> float:
    later = [success for minute, success in one if minute > 0]
    return sum(later) / len(later)


def _by_minute(curves: _Curves) -> str:
    found = {robots: list(each.values()) for robots, each in curves.items() if each}
    at = [minute for minute, _ in next(iter(found.values()))[0]]
    rows = [
        [f"{robots}", *(f"{100 * success:.1f}" for _, success in stats.mean_curve(each))]
        for robots, each in found.items()
    ]
    return "Mean success (percent) by simulated minute:\n\n" + table(["robots", *(f"{m:.0f}" for m in at)], rows)


def _looked_at_afterwards(program: Program, curves: _Curves) -> str:
    """What nobody planned to look at, from the same curves."""
    found = {robots: each for robots, each in curves.items() if each}
    thresholds = sorted({*_MORE_THRESHOLDS, program.threshold})
    times = [
        [str(robots), *(_minutes(program, each, threshold) for threshold in thresholds)]
        for robots, each in found.items()
    ]
    marks = [minute for minute, _ in next(iter(next(iter(found.values())).values())) if minute]
    equal = {
        total: row
        for total, row in at_equal_data(found, [2 * minute for minute in marks]).items()
        if len(row) > 1 and total <= program.fleet.minutes
    }
    rows = [
        [f"{total:.0f}", *(percent(row[robots]) if robots in row else "-" for robots in found)]
        for total, row in equal.items()
    ]
    parts = [
        "Looked at afterwards, from the same curves. Minutes to other thresholds:\n",
        table(["robots", *(f"{100 * threshold:.0f} %" for threshold in thresholds)], times),
        "",
    ]
    if rows:
        parts += [
            "Success after as many minutes of work by all robots together, so with as much data:\n",
            table(["robot-minutes", *map(_robots, found)], rows),
            "",
        ]
    return "\n".join(parts)


def _effort(program: Program, done: Results, rule: str) -> str:
    header = ["robots", "episodes", "solved alone", "with help", "human steps", "trained on", "takeovers"]
    header += ["gradient steps, planned", "online share drawn"]
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
    return "What a run consists of (means over seeds):\n\n" + table(header, rows) + "\n"


def _ends(curves: _Curves) -> str:
    lines = [
        f"- {_robots(robots)}: " + ", ".join(f"{100 * one[-1][1]:.1f}" for _, one in sorted(found.items())) + "."
        for robots, found in curves.items()
        if found
    ]
    return "Success at the end, seed by seed, in percent:\n\n" + "\n".join(lines) + "\n"


def _robots(count: int) -> str:
    return "1 robot" if count == 1 else f"{count} robots"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
