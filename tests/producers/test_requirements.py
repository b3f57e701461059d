"""requirements/robot.txt is enough for a robot: no torch, no ClickHouse, nothing of the learner's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTS = """
import importlib, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name, name=name)

absent, wanted = json.load(sys.stdin)
sys.meta_path.insert(0, Absent())
for name in wanted:
    importlib.import_module(name)
"""


def pinned(name: str) -> set[str]:
    """Distributions and versions, as `name==version`."""
    text = (ROOT / "requirements" / name).read_text()
    return set(re.findall(r"^([a-z0-9.-]+==[^ \\]+)", text, re.MULTILINE))


def test_its_pins_are_some_of_those_that_are_tested() -> None:
    assert pinned("robot.txt") < pinned("base.txt") <= pinned("dev.txt")
    assert not any(one.startswith("torch==") for one in pinned("robot.txt"))


def test_a_robot_imports_nothing_else() -> None:
    there = {one.partition("==")[0] for one in pinned("robot.txt")} | {"sop"}
    absent = [
        package
        for package, distributions in packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", name).lower() in there for name in distributions)
    ]
    assert {"torch", "clickhouse_connect", "pyarrow", "typer"} <= set(absent)
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "producers").rglob("*.py")
        if "emulator" not in path.parts and path.stem != "__init__"
    ]
    assert "producers.robot" in modules
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        input=json.dumps([absent, ["examples.one_robot", *modules]]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
