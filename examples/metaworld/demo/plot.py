"""The picture: success over simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw(
    path: Path,
    online: Sequence[tuple[float, float, float]],
    evaluated: tuple[float, float],
    minutes: float,
    title: str,
) -> None:
    """Write a PNG.

    Args:
        path: where to; folders are made.
        online: by interval: simulated minute, share of episodes solved alone, share of steps by humans.
        evaluated: success of base and last policy on the fixed set, shares of one.
        minutes: simulated length of the run.
        title: above the picture.
    """
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    at = [minute for minute, _, _ in online]
    axes.plot(at, [100 * alone for _, alone, _ in online], label="online episodes solved without help")
    axes.plot(at, [100 * human for _, _, human in online], linestyle=":", label="steps under human control")
    axes.plot(
        [0, minutes],
        [100 * share for share in evaluated],
        "o--",
        label="fixed evaluation set: base and last policy",
    )
    axes.set(xlabel="simulated minutes", ylabel="percent", ylim=(0, 100), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, format="png")
    plt.close(figure)
