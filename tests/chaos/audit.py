"""What `sop reconcile` says of a stack when chaos is over: the operator's own audit, beside the checker's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.processes import ROOT

BOUND = 900.0
"""Seconds; a stack of 25 seeds takes one or two minutes."""
HARMLESS = "orphaned"
"""Killed members leave objects behind that nobody announced; `sop gc` is for them."""
SHOWN = 20


@dataclass
class Audit:
    """What was found: everything in `counts`; what is not harmless by kind in `of`, and spelled out in `findings`.

    `checked`: how many things were compared.
    """

    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    checked: dict[str, int] = field(default_factory=dict)
    of: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.of

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def audit(environment: Mapping[str, str], file: Path) -> Audit:
    """Run `sop reconcile --deep --grace 0s`; its JSON stays in `file`."""
    began = time.monotonic()
    command = [
        str(Path(sys.executable).with_name("sop")),
        "reconcile",
        "--deep",
        "--grace",
        "0s",
        "--json",
        str(file),
    ]
    try:
        done = subprocess.run(
            command, env=dict(environment), cwd=ROOT, capture_output=True, timeout=BOUND, check=False
        )
        said = done.stderr.decode(errors="replace")[-2000:]
    except subprocess.TimeoutExpired:
        said = f"it did not end within {BOUND:.0f} s"
    seconds = time.monotonic() - began
    if not file.exists():
        return Audit(seconds, of={"failed": 1}, findings=[f"sop reconcile says nothing: {said}"])
    return judged(json.loads(file.read_text()), seconds)


def judged(report: dict[str, Any], seconds: float) -> Audit:
    """What of a report of `sop reconcile` is an anomaly; so is what is open although everything was committed."""
    found = Audit(seconds, report["counts"], report["checked"])
    for group, count in report["counts"].items():
        where, _, kind = group.rpartition(": ")
        if kind != HARMLESS:
            found.of[kind] = found.of.get(kind, 0) + count
            found.findings.append(f"{count} {kind} ({where})")
    if report["open"]:
        found.of["open"] = len(report["open"])
        found.findings.append(f"{len(report['open'])} episodes are open, and nothing is under way")
    lines = [f"{f['kind']} ({f['where']}) {f['name']}: {f['text']}" for f in report["findings"]]
    found.findings += [line for line in lines if not line.startswith(HARMLESS)][:SHOWN]
    return found
