"""A report as the tables of docs/reliability.md: python -m tests.chaos.table chaos.json"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from tests.chaos.kinds import KINDS


def tables(report: dict[str, Any]) -> str:
    """Markdown: what was run and found, then how often each fault was injected."""
    failed = [str(seed["seed"]) for seed in report["seeds"] if "anomalies" in seed]
    first, last = report["seeds"][0]["seed"], report["seeds"][-1]["seed"]
    facts = {
        "machine": report["machine"],
        "command": f"`{report['command']}`",
        "seeds": f"{first} to {last} ({report['runs']} runs, {report['seconds'] / 60:.0f} minutes)",
        "events acknowledged": f"{report['events']:,}",
        "episodes that arrived whole": f"{report['whole_episodes']:,}",
        "announcements": ", ".join(f"{name} {count:,}" for name, count in sorted(report["announcements"].items())),
        "**lost**": f"**{report['lost']}**",
        "**doubled**": f"**{report['doubled']}**",
        "other anomalies": str(report["anomalies"] - report["lost"] - report["doubled"]),
        "`sop reconcile` after them": _audited(report["reconcile"]),
        "runs that failed": _of(failed, report["runs"]),
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    lines += ["| fault | injected | what it is |", "|---|---|---|"]
    for kind, text in KINDS.items():
        lines.append(f"| {kind} | {report['faults'].get(kind, 0):,} | {text} |")
    return "\n".join(lines)


def _of(failed: list[str], runs: int) -> str:
    return f"{len(failed)} of {runs}: seed {', '.join(failed)}" if failed else "none"


def _audited(audits: list[dict[str, Any]]) -> str:
    """How many audits, and what they found that is not harmless."""
    found = sum((Counter(audit["of"]) for audit in audits), Counter())
    orphans = sum(count for audit in audits for name, count in audit["counts"].items() if "orphaned" in name)
    what = ", ".join(f"{count} {kind}" for kind, count in found.items()) or "nothing missing, doubled or wrong"
    return f"{len(audits)} audits: {what}; {orphans:,} objects of members that were killed"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.table", description="A report as Markdown tables."
    )
    parser.add_argument("report", type=argparse.FileType(), help="JSON that `python -m tests.chaos` wrote")
    print(tables(json.load(parser.parse_args().report)))  # noqa: T201 - a command's output
