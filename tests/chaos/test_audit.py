"""What of the operator's audit fails a run of chaos, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.audit import audit, judged
from tests.chaos.report import Report, merged


def report_with(kind: str, where: str = "rows") -> dict[str, object]:
    finding = {"kind": kind, "where": where, "name": "episode 7", "text": "is so"}
    return {"counts": {f"{where}: {kind}": 3}, "checked": {"rows": 9}, "findings": [finding], "open": {}}


@pytest.mark.parametrize(
    ("kind", "clean"), [("missing", False), ("doubled", False), ("wrong", False), ("orphaned", True)]
)
def test_whatever_is_not_an_orphan_fails_the_run_and_is_spelled_out(kind: str, clean: bool) -> None:
    found = judged(report_with(kind), 1.0)
    assert found.clean == clean
    assert found.counts == {f"rows: {kind}": 3}
    assert (f"{kind} (rows) episode 7: is so" in found.findings) == (not clean)
    report = Report([1], 10, 1)
    report.add_audit(found)
    assert report.clean == clean
    whole = report.as_json()
    assert (whole["lost"], whole["doubled"]) == (3 * (kind == "missing"), 3 * (kind == "doubled"))
    assert whole["anomalies"] == (0 if clean else 3)
    assert whole["reconcile"] == [found.as_json()]
    assert merged([whole, whole])["reconcile"] == [found.as_json()] * 2


def test_an_episode_that_is_open_when_all_is_over_fails_the_run() -> None:
    assert not judged({"counts": {}, "checked": {}, "findings": [], "open": {"e": "robot 1"}}, 1.0).clean


def test_an_audit_that_says_nothing_fails_the_run(tmp_path: Path) -> None:
    found = audit({"SOP_NO_SUCH_SETTING": "1"}, tmp_path / "audit.json")
    assert found.of == {"failed": 1}
    json.dumps(found.as_json())
