"""What the paper found, and whether it is found here: differences over seeds, the paper's beside them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.paper import stats
from benchmarks.paper.program import HG_DAGGER, HUMAN, RECAP, Base, Program, Unit
from benchmarks.paper.result import Judged, Result

Results = Mapping[Unit, Result]


@dataclass(frozen=True, slots=True)
class Effect:
    """One of the paper's findings.

    claim: in words. paper: its numbers for it, of its tasks. low, value, high: ours, an interval of 95 %, NaN
    bounds of one seed. nothing: the value at which there is no effect. seeds: how many. times: it is a quotient,
    not a difference in success.
    """

    claim: str
    paper: str
    value: float
    low: float
    high: float
    nothing: float
    seeds: int
    times: bool = False

    @property
    def verdict(self) -> str:
        """Decided by the interval alone."""
        if math.isnan(self.low) or math.isnan(self.high):
            return "too few seeds"
        if self.low > self.nothing:
            return "shown"
        return "the opposite" if self.high < self.nothing else "not shown"


def effects(program: Program, done: Results) -> list[Effect]:
    """Those for which there is at least one seed, in the order of the tables."""
    return list(_effects(program, done))


def speed(program: Program, judged: Judged) -> float:
    """Terminated episodes an hour of one robot, resets not counted (the paper's throughput)."""
    return judged.episodes / (judged.steps * program.fleet.step_seconds / 3600)


def _effects(program: Program, done: Results) -> Iterator[Effect]:
    few, most, least = program.fewer_seeds, max(program.fleets), min(program.fleets)

    def success(unit: Unit) -> float | None:
        return done[unit].last.success if unit in done else None

    def fleet(robots: int) -> Callable[[int], float | None]:
        return lambda seed: success(program.fleet_run(robots, HUMAN, seed))

    def online(algorithm: str) -> Callable[[int], float | None]:
        return lambda seed: success(program.online_run(algorithm, seed))

    def offline(algorithm: str) -> Callable[[int], float | None]:
        return lambda seed: success(program.offline_run(algorithm, seed))

    def sized(size: int) -> Callable[[int], float | None]:
        return lambda seed: success(program.sized_run(size, seed))

    def alone(unit: Unit) -> Callable[[int], float | None]:
        return lambda _seed: success(unit)

    def more(seed: int) -> float | None:
        return success(Base(program.base.demonstrations, program.matched, seed))

    small, _, large = program.sizes
    recap_base = replace(program.base, algorithm=RECAP)
    paired = [
        (f"{most} robots end higher than {least}", "+12", fleet(most), fleet(least), program.seeds),
        ("SOP + HG-DAgger improves its base", "+28 to +38", online(HG_DAGGER), alone(program.base), program.seeds),
        ("SOP + RECAP improves its base", "+24 to +34", online(RECAP), alone(recap_base), few),
        ("SOP + HG-DAgger ends above offline", "+12 to +16", online(HG_DAGGER), offline(HG_DAGGER), few),
        ("SOP + RECAP ends above offline", "+6 to +9", online(RECAP), offline(RECAP), few),
        ("SOP + HG-DAgger ends above SOP + RECAP", "+2 to +9", online(HG_DAGGER), online(RECAP), few),
        (f"SOP improves the base of {small} a task", "yes", sized(small), alone(Base(small)), few),
        (f"SOP improves the base of {large} a task", "yes", sized(large), alone(Base(large)), few),
        (f"SOP ends higher from {large} a task than from {small}", "yes", sized(large), sized(small), few),
        (
            "SOP ends above as many labelled steps of demonstrations",
            "+19 (for 80 h)",
            sized(program.sizes[1]),
            more,
            few,
        ),
    ]
    yield from _sooner(program, done)
    for claim, paper, better, worse, seeds in paired:
        pairs = [(a, b) for seed in seeds if (a := better(seed)) is not None and (b := worse(seed)) is not None]
        if pairs:
            yield _of_mean(claim, paper, stats.mean([a - b for a, b in pairs]))
    base = done.get(program.base)
    runs = [done[unit] for seed in few if (unit := program.online_run(HG_DAGGER, seed)) in done]
    if base is not None and runs:
        faster = stats.mean([speed(program, run.last) / speed(program, base.last) for run in runs])
        yield _of_mean("SOP + HG-DAgger ends more episodes an hour", "2.3× and 4.1×", faster, times=True)


def _sooner(program: Program, done: Results) -> Iterator[Effect]:
    """Speed-ups of table 1, by the human rule."""
    curves = curves_of(program, done, HUMAN)
    least = min(program.fleets)
    for robots in program.fleets:
        common = set(curves[robots]) & set(curves[least])
        if robots == least or not common:
            continue
        found = stats.speed_up(curves[least], curves[robots], program.threshold)
        said = {2: "1.4×", 4: "2.4×"}.get(robots, "-")
        claim = f"{robots} robots reach {100 * program.threshold:.0f} % sooner than {least}"
        yield Effect(claim, said, found.value, found.low, found.high, 1.0, len(common), times=True)


def curves_of(program: Program, done: Results, rule: str) -> dict[int, dict[int, list[tuple[float, float]]]]:
    """Success by minute, by size of the fleet and seed, of the runs of table 1 that there are.

    The base's own evaluation is minute 0, for it is the same for all runs.
    """
    before = [(0.0, done[program.base].last.success)] if program.base in done else None
    return {
        robots: {
            seed: [*before, *((judged.minute, judged.success) for judged in done[run].judged)]
            for seed in program.fleet_seeds(rule)
            if (run := program.fleet_run(robots, rule, seed)) in done and before is not None
        }
        for robots in program.fleets
    }


def at_equal_data(
    curves: Mapping[int, Mapping[int, stats.Curve]], minutes: Sequence[float]
) -> dict[float, dict[int, stats.Mean]]:
    """Success when a fleet's robots have worked so many minutes together, by size; where it was judged then."""
    found: dict[float, dict[int, stats.Mean]] = {}
    for total in minutes:
        for robots, seeds in curves.items():
            at = [success for points in seeds.values() for minute, success in points if minute == total / robots]
            if at:
                found.setdefault(total, {})[robots] = stats.mean(at)
    return found


def _of_mean(claim: str, paper: str, mean: stats.Mean, *, times: bool = False) -> Effect:
    low, high = mean.value - mean.half, mean.value + mean.half
    return Effect(claim, paper, mean.value, low, high, 1.0 if times else 0.0, mean.n, times=times)
