"""`make paper`: run what is missing, then write the tables.

    python -m benchmarks.paper --only table1 --seeds 11..13 --budget-minutes 90

A unit that has a result is not run again, so the same command goes on after a kill. --report-only runs nothing.
Exit codes: 0 good, 1 a unit failed (the others were run), 2 wrong use; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.paper import report
from benchmarks.paper.frozen import PROGRAM, QUICK, TUNING
from benchmarks.paper.program import Program, Unit
from benchmarks.paper.result import StaleResult, load, store
from benchmarks.paper.schedule import Schedule

ROOT = Path(__file__).resolve().parents[2]
_RESULTS = ROOT / "benchmarks" / "paper" / "results"


def main() -> int:
    """See the module's text."""
    options = _options()
    program: Program = QUICK if options.quick else TUNING if options.tuning else PROGRAM
    units = program.units(options.only, options.seeds)
    if options.list:
        print("\n".join(unit.name for unit in units))
        return 0

    def tell() -> None:
        if options.document:
            report.write(program, options.results, options.document)

    try:
        if options.unit:
            return _do(program, next(unit for unit in units if unit.name == options.unit), options)
        done = load(options.results, program, units)
        code = 0
        if not options.report_only:
            schedule = Schedule(program, options.results, options.work, _passed_on(options), tell)
            code = schedule.run(units, done, jobs=options.jobs, budget=options.budget_minutes)
        tell()
        if options.document:
            print(f"tables: {options.document}")
    except StaleResult as error:
        print(f"paper: {error}", file=sys.stderr)
        return 2
    except StopIteration:
        print(f"paper: no unit {options.unit}; --list names them", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("paper: stopped; the same command goes on", file=sys.stderr)
        return 130
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="Run what is missing.")
    parser.add_argument("--only", action="append", choices=["table1", "table2", "table3"], default=[])
    parser.add_argument("--seeds", type=_seeds, help="A..B; by default those that are reported")
    parser.add_argument("--tuning", action="store_true", help="the tuning seeds; results are never reported")
    parser.add_argument("--budget-minutes", type=float, help="begin nothing that would not fit")
    parser.add_argument("--jobs", type=int, default=1, help="units at a time")
    parser.add_argument("--quick", action="store_true", help="a tiny programme that shows only that it works")
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=ROOT / "artifacts" / "paper", help="for servers and bases")
    parser.add_argument("--document", type=Path, help="where the tables go; by default docs/paper.md")
    parser.add_argument("--report-only", action="store_true", help="write the tables of what there is")
    parser.add_argument("--list", action="store_true", help="name the units, in order")
    parser.add_argument("--unit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    ours = options.results is None and not options.quick and not options.tuning
    if options.results is None:
        options.results = _RESULTS if ours else options.work / ("quick" if options.quick else "tuning")
    if options.document is None and ours:
        options.document = ROOT / "docs" / "paper.md"
    options.results, options.work = options.results.absolute(), options.work.absolute()
    return options


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"seeds are A..B, not {text!r}") from None


def _passed_on(options: argparse.Namespace) -> list[str]:
    """What a unit's own process must know."""
    seeds = [] if options.seeds is None else ["--seeds", f"{options.seeds.start}..{options.seeds.stop - 1}"]
    flags = [f"--{name}" for name in ("quick", "tuning") if getattr(options, name)]
    return [*flags, *seeds, "--results", str(options.results), "--work", str(options.work)]


def _do(program: Program, unit: Unit, options: argparse.Namespace) -> int:
    """One unit, in this process; its result lies in the folder afterwards."""
    from benchmarks.paper.bases import make_base  # noqa: PLC0415
    from benchmarks.paper.program import Base  # noqa: PLC0415
    from benchmarks.paper.runs import play  # noqa: PLC0415
    from benchmarks.paper.site import UnitFailed  # noqa: PLC0415
    from examples.metaworld.demo.crew import CrewFailed  # noqa: PLC0415
    from infra.errors import InfraError  # noqa: PLC0415
    from infra.local.stack import StackError  # noqa: PLC0415
    from infra.local.state import DirectoryInUseError  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("SOP_")]:
        del os.environ[name]  # a leftover setting would send its data to another cluster
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds through everything that must be stopped
    began = time.monotonic()
    try:
        base = unit if isinstance(unit, Base) else unit.base
        known = load(options.results, program, [base]).get(base)
        made = make_base(program, base, options.work, known.base_sha256 if known else None)
        if known is None:
            store(options.results, base, made)
        if not isinstance(unit, Base):
            store(options.results, unit, play(program, unit, options.work))
    except (UnitFailed, CrewFailed, StackError, DirectoryInUseError, InfraError, OSError) as error:
        print(f"{unit.name} failed after {time.monotonic() - began:.0f} s: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
