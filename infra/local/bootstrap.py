"""Set up a clone: tools, Python environment and servers.  Run by `make setup`: python3 -m infra.local.bootstrap

The system's own python3 runs this before any environment exists, so it and the modules beside it that it
imports use the standard library only; those that check the tools run on Python 3.8 as well, to refuse it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from subprocess import CalledProcessError

from infra.local import toolcheck
from infra.local.progress import say

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Bring this clone to where `sop` and its servers can start; return the exit code (0, 1 or 2)."""
    parser = argparse.ArgumentParser(prog="make setup", description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="?", choices=["all", "check", "lock"], default="all")
    step = parser.parse_args(arguments).step

    # All tools are looked at before anything is installed: a refusal leaves the machine as it was.
    faults = toolcheck.faults(toolcheck.TOOLS)
    if faults:
        for fault in faults:
            say(fault, error=True)
        return 2
    if step == "check":
        return 0
    try:
        _do(step)
    except (CalledProcessError, OSError, RuntimeError) as error:
        what = (
            f"{error.cmd[0]} failed; its last words are above" if isinstance(error, CalledProcessError) else error
        )
        say(f"{what}. Run `make setup` again: it goes on from here.", error=True)
        return 1
    except KeyboardInterrupt:
        say("interrupted; nothing half-made was left. Run `make setup` again.", error=True)
        return 130
    return 0


def _do(step: str) -> None:
    # Imported late: Pythons that are refused above may not be able to.
    from infra.local import artifacts, builders, venv  # noqa: PLC0415

    if step == "lock":
        venv.lock_requirements(ROOT)
        return
    venv.install(ROOT)
    for artifact in builders.all_artifacts(toolcheck.java_version()):
        artifacts.ensure(artifact)


if __name__ == "__main__":
    sys.exit(main())
