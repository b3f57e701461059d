"""What a run of many seeds found, as JSON and as a line for each seed."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.audit import Audit
from tests.chaos.kinds import KINDS
from tests.chaos.run import Outcome

SHOWN = 20
"""Anomalies of a seed that are spelled out; the others are counted."""


@dataclass
class Report:
    """Adds outcomes up."""

    seeds: list[int]
    events_per_seed: int
    robots: int
    outcomes: list[Outcome] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def add_audit(self, audit: Audit) -> None:
        """What `sop reconcile` found on a stack after its last seed."""
        self.audits.append(audit)

    @property
    def clean(self) -> bool:
        return not any(o.verdict.anomalies for o in self.outcomes) and all(a.clean for a in self.audits)

    def as_json(self) -> dict[str, Any]:
        """The report; `faults` counts what was really injected."""
        faults: Counter[str] = Counter()
        for outcome in self.outcomes:
            faults += outcome.faults
        audited = sum((Counter(audit.of) for audit in self.audits), Counter[str]())
        return {
            "events": sum(outcome.events for outcome in self.outcomes),
            "runs": len(self.outcomes),
            "lost": sum(outcome.verdict.lost for outcome in self.outcomes) + audited["missing"],
            "doubled": sum(outcome.verdict.doubled for outcome in self.outcomes) + audited["doubled"],
            "faults": {kind: faults[kind] for kind in KINDS},
            "anomalies": sum(len(o.verdict.anomalies) for o in self.outcomes) + audited.total(),
            "whole_episodes": sum(outcome.verdict.whole for outcome in self.outcomes),
            "announcements": dict(sum((o.verdict.revisions for o in self.outcomes), Counter())),
            "reconcile": [audit.as_json() for audit in self.audits],
            "seconds": round(sum(outcome.seconds for outcome in self.outcomes), 1),
            "machine": _machine(),
            "command": "python -m tests.chaos " + " ".join(sys.argv[1:]),
            "seeds": [self._seed(outcome) for outcome in self.outcomes],
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")

    def _seed(self, outcome: Outcome) -> dict[str, Any]:
        found: dict[str, Any] = {
            "seed": outcome.schedule.seed,
            "events": outcome.events,
            "reconcile": [audit.as_json() for audit in self.audits],
            "seconds": round(outcome.seconds, 1),
            "faults": dict(outcome.faults),
        }
        if outcome.verdict.anomalies:
            found["anomalies"] = dict(Counter(kind for kind, _ in outcome.verdict.anomalies))
            found["details"] = [f"{kind}: {what}" for kind, what in outcome.verdict.anomalies[:SHOWN]]
            found["repeat"] = repeat(outcome)
        return found


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Reports of several processes as one; `seconds` is then the sum over all."""
    sums = ("events", "runs", "lost", "doubled", "anomalies", "whole_episodes", "seconds")
    counters = ("faults", "announcements")
    return {
        **{name: round(sum(part[name] for part in parts), 1) for name in sums},
        **{name: dict(sum((Counter(part[name]) for part in parts), Counter())) for name in counters},
        "machine": parts[0]["machine"],
        "command": "python -m tests.chaos " + " ".join(sys.argv[1:]),
        "reconcile": [audit for part in parts for audit in part["reconcile"]],
        "seeds": [seed for part in parts for seed in part["seeds"]],
    }


def repeat(outcome: Outcome) -> str:
    """The command that runs this seed again."""
    schedule = outcome.schedule
    size = f"--events {schedule.events} --robots {schedule.robots}"
    return f"python -m tests.chaos --seeds {schedule.seed}..{schedule.seed} {size} --report repeat.json"


def audit_line(audit: Audit) -> None:
    """One line for a stack's audit, and what was wrong."""
    checked = ", ".join(f"{count:,} {name}" for name, count in audit.checked.items())
    state = "ok  " if audit.clean else "FAIL"
    print(f"reconcile {state} {audit.seconds:5.1f} s  {checked}; found: {audit.counts}", flush=True)  # noqa: T201
    for finding in audit.findings:
        print(f"     {finding}", flush=True)  # noqa: T201


def progress(outcome: Outcome) -> None:
    """One line for a seed, and what was wrong with it."""
    verdict = outcome.verdict
    injected = ", ".join(kind for kind in KINDS if outcome.faults[kind])
    state = "ok  " if not verdict.anomalies else "FAIL"
    line = (
        f"seed {outcome.schedule.seed:>4} {state} {outcome.events:>6} events {outcome.seconds:5.1f} s  {injected}"
    )
    print(line, flush=True)  # noqa: T201 - a command's output
    for kind, what in verdict.anomalies[:SHOWN]:
        print(f"     {kind}: {what}", flush=True)  # noqa: T201
    if verdict.anomalies:
        print(f"     {len(verdict.anomalies)} anomalies; again: {repeat(outcome)}", flush=True)  # noqa: T201


def _machine() -> str:
    """Without the name of a provider's kernel."""
    release = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{os.cpu_count()} CPUs, {platform.system()} {release}, {platform.machine()}"
