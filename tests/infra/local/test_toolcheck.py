"""A missing or old tool is named in one line, before anything is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import toolcheck

ROOT = Path(__file__).resolve().parents[3]


def fake(directory: Path, name: str, says: str) -> None:
    script = directory / name
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
    script.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH on which all tools are new enough."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "cat").symlink_to("/bin/cat")
    fake(directory, "java", 'openjdk version "17.0.15" 2025-04-15\nOpenJDK (build 17.0.15+6-Debian)')
    fake(directory, "mvn", "Apache Maven 3.8.7")
    fake(directory, "go", "go version go1.26.8 linux/amd64")
    return directory


def check(tools: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(tools), "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAVA_HOME", None)
    command = [sys.executable, "-m", "infra.local.bootstrap"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("tool", "says", "expected"),
    [
        ("java", 'openjdk version "11.0.2" 2019-01-15', "JDK 11.0.2 is too old: JDK >= 17"),
        ("java", 'java version "1.8.0_402"', "JDK 1.8.0 is too old: JDK >= 17"),
        ("mvn", "Apache Maven 3.6.0", "Maven 3.6.0 is too old: Maven >= 3.6.3"),
        ("go", "go version go1.19.8 linux/amd64", "Go 1.19.8 is too old: Go >= 1.25"),
        ("go", "devel", "Go does not say its version: Go >= 1.25"),
    ],
)
def test_old_tool_is_named_and_nothing_is_installed(
    tools: Path, tmp_path: Path, tool: str, says: str, expected: str
) -> None:
    fake(tools, tool, says)
    done = check(tools, tmp_path / "cache")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert expected in line
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("tool", "name"), [("java", "JDK"), ("mvn", "Maven"), ("go", "Go")])
def test_missing_tool_is_named_and_nothing_is_installed(tools: Path, tmp_path: Path, tool: str, name: str) -> None:
    (tools / tool).unlink()
    done = check(tools, tmp_path / "cache")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{name} is missing: {name} >= " in line
    assert not (tmp_path / "cache").exists()


def test_every_missing_tool_is_named_at_once(tools: Path, tmp_path: Path) -> None:
    for tool in ("java", "go"):
        (tools / tool).unlink()
    assert [line.split()[1] for line in check(tools, tmp_path).stderr.splitlines()] == ["JDK", "Go"]


def test_newer_versions_compare_as_numbers(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    fake(tools, "java", 'openjdk version "25" 2025-09-16')
    fake(tools, "mvn", "Apache Maven 3.10.0")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert toolcheck.faults(toolcheck.TOOLS) == []


def test_java_home_wins_over_path(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    (fault,) = toolcheck.faults(toolcheck.TOOLS)
    assert fault.startswith("JDK is missing")
