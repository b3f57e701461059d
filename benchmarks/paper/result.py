"""What is kept of a unit: one small JSON file, written at its end and not before."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from benchmarks.paper.program import Program, Unit
from infra.files import write_atomically


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Judged(_Record):
    """A version alone on the fixed set; `steps` are control steps of all its episodes."""

    minute: float
    version: int
    episodes: int
    successes: int
    steps: int
    by_task: dict[str, float]

    @property
    def success(self) -> float:
        """Share of one."""
        return self.successes / self.episodes


class Online(_Record):
    """What the fleet did while it ran; steps are control steps.

    alone: successes without help. labelled_steps: those of `human_steps` in episodes that did not fail, which
    HG-DAgger trains on. online_share: of online data in what the learner drew after the base, lowest, mean and
    highest over tasks and gradient steps; of tasks that have some.
    """

    episodes: int
    successes: int
    alone: int
    steps: int
    human_steps: int
    interventions: int
    labelled_steps: int
    online_share: tuple[float, float, float]


class Result(_Record):
    """One unit.

    digest: of the settings. code: the commit that ran it. learner: all settings that it was trained with.
    guidance: β that it was judged with. base_sha256, last_sha256: artifacts of the first and the last version.
    demonstration_steps: that the first version was trained on. outcomes: successes and failures by task that
    RECAP's value function was fitted on. cpu_seconds: by kind of process.
    """

    name: str
    digest: str
    code: str
    learner: dict[str, JsonValue]
    guidance: float
    seed: int
    robots: int
    base_sha256: str
    last_sha256: str
    demonstration_steps: int
    judged: list[Judged]
    online: Online | None = None
    outcomes: dict[str, tuple[int, int]] | None = None
    wall_seconds: float
    cpu_seconds: dict[str, float]
    machine: str

    @property
    def last(self) -> Judged:
        """The newest version that was judged."""
        return self.judged[-1]


class StaleResult(Exception):
    """A result was made with other settings; the text names it and says what to do."""


def path_of(folder: Path, unit: Unit) -> Path:
    """Where a unit's result lies."""
    return folder / f"{unit.name}.json"


def store(folder: Path, unit: Unit, result: Result) -> None:
    """Keep a result: all of it or nothing, whenever the process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path_of(folder, unit), result.model_dump_json(indent=1) + "\n")


def load(folder: Path, program: Program, units: Iterable[Unit]) -> dict[Unit, Result]:
    """Results of those units that have one.

    Raises:
        StaleResult: one is unreadable, or was made with other settings than the program's.
    """
    found = {}
    for unit in units:
        path = path_of(folder, unit)
        if not path.exists():
            continue
        try:
            result = Result.model_validate_json(path.read_text())
        except (ValidationError, ValueError) as error:
            raise StaleResult(f"{path} is no result; remove it, and it is run again") from error
        if result.digest != program.digest(unit):
            raise StaleResult(f"{path} was made with other settings; remove it, and it is run again")
        found[unit] = result
    return found
