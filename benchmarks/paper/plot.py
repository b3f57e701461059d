"""Pictures, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.paper import stats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves(path: Path, found: Mapping[int, Mapping[int, stats.Curve]], threshold: float, title: str) -> None:
    """Mean success over simulated time by size of the fleet, with 95 % intervals over seeds."""
    figure, axes = _figure(4.5)
    for robots, by_seed in found.items():
        if not by_seed:
            continue
        points = list(zip(*by_seed.values(), strict=True))
        at = [each[0][0] for each in points]
        means = [stats.mean([100 * success for _, success in each]) for each in points]
        (line,) = axes.plot(
            at,
            [m.value for m in means],
            "o-",
            markersize=3,
            label="1 robot" if robots == 1 else f"{robots} robots",
        )
        if len(by_seed) > 1:
            low, high = [m.value - m.half for m in means], [m.value + m.half for m in means]
            axes.fill_between(at, low, high, alpha=0.15, color=line.get_color())
    axes.axhline(100 * threshold, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="simulated minutes", ylabel="success on the fixed set, percent", title=title)
    axes.legend(loc="lower right", fontsize="small")
    _save(figure, path)


def arms(path: Path, found: Mapping[str, Sequence[float]], title: str) -> None:
    """Success of each arm: a dot for each seed, their mean and its 95 % interval."""
    figure, axes = _figure(0.8 + 0.38 * len(found))
    for place, values in enumerate(found.values()):
        mean = stats.mean([100 * value for value in values])
        axes.plot(
            [100 * value for value in values], [place] * len(values), ".", color="grey", markersize=6, alpha=0.6
        )
        axes.errorbar(
            [mean.value], [place], xerr=None if mean.n == 1 else [mean.half], fmt="o", capsize=4, color="C0"
        )
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set(xlabel="percent; the bar is the 95 % interval of the mean over seeds", title=title)
    _save(figure, path)


def _figure(height: float) -> tuple[Figure, Axes]:
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import pyplot as plt  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)
