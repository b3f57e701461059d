"""Pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.paper import stats


def curves(path: Path, found: Mapping[int, Mapping[int, stats.Curve]], threshold: float, title: str) -> None:
    """Mean success over simulated time by size of the fleet, with 95 % intervals over seeds, as a PNG."""
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
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
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)
