"""From results to `docs/paper.md`: tables, intervals, pictures and what must be said about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.paper import arms, conclusions, fleets, markdown, words
from benchmarks.paper.program import Program, Run, Unit
from benchmarks.paper.result import Result, StaleResult, load, path_of


def write(program: Program, folder: Path, document: Path) -> None:
    """Write the document, and the pictures beside it; what has not been run is said to be missing.

    Raises:
        StaleResult: a result was made with other settings, or began with another base than the one that is shown.
    """
    done = load(folder, program, program.units())
    _require_one_base(folder, done)
    document.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        words.heading(program, done),
        conclusions.section(program, done),
        *(fleets.section(program, done, rule, document.parent) for rule in program.rules),
        arms.methods(program, done, document.parent),
        arms.bases(program, done, document.parent),
        words.economics(program, done),
        words.differences(program, done),
    ]
    document.write_text(markdown.flow("\n".join(part.rstrip() + "\n" for part in parts if part)))


def _require_one_base(folder: Path, done: Mapping[Unit, Result]) -> None:
    for unit, result in done.items():
        if isinstance(unit, Run) and unit.base in done and result.base_sha256 != done[unit.base].last_sha256:
            raise StaleResult(
                f"{path_of(folder, unit)} began with another base than {unit.base.name}'s; remove it, and it is "
                "run again"
            )
