"""Which tools a machine must have before set-up, their least versions, and the line that says what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """A program that set-up needs.

    `probe` returns what the tool says about its version, or None if it is absent; `pattern` finds the version
    in that text; `advice` tells what to do about a missing or old one.
    """

    name: str
    least: str
    advice: str
    pattern: str
    probe: Callable[[], str | None]


def faults(tools: Sequence[Tool]) -> list[str]:
    """Return one line for each tool that is missing or too old; an empty list if all is well."""
    return [fault for tool in tools if (fault := _fault(tool))]


def java_command() -> str:
    """Return the Java to run: the one JAVA_HOME names, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else "java"  # noqa: PTH118


def java_version() -> str:
    """Return the exact version of the Java in use, such as `17.0.15+6-Debian-1deb12u1`.

    Raises:
        RuntimeError: there is no Java, or it does not say its version.
    """
    text = _output([java_command(), "-version"]) or ""
    match = re.search(r"\(build ([^,)]+)", text)
    if not match:
        raise RuntimeError(
            f"{java_command()} does not run; install JDK >= 17, for example `apt install openjdk-17-jdk-headless`"
        )
    return match[1]


def _fault(tool: Tool) -> str | None:
    said = tool.probe()
    if said is None:
        return f"{tool.name} is missing: {tool.name} >= {tool.least} is needed; {tool.advice}"
    match = re.search(tool.pattern, said)
    if not match:
        return f"{tool.name} does not say its version: {tool.name} >= {tool.least} is needed; {tool.advice}"
    if _parts(match[1]) < _parts(tool.least):
        return f"{tool.name} {match[1]} is too old: {tool.name} >= {tool.least} is needed; {tool.advice}"
    return None


def _parts(version: str) -> tuple[int, ...]:
    parts = tuple(int(part) for part in version.split("."))
    return parts + (0,) * (4 - len(parts))


def _output(command: list[str]) -> str | None:
    """Return what the command prints, or None if it is absent, fails or says nothing within a minute."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _saying(*command: str) -> Callable[[], str | None]:
    return lambda: _output(list(command))


def _ensurepip() -> str | None:
    try:
        import ensurepip  # noqa: PLC0415 - Debian ships Python without it
    except ImportError:
        return None
    return f"pip {ensurepip.version()}"


_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

TOOLS: Sequence[Tool] = (
    Tool(
        "Python",
        "3.11",
        "install it and run `make setup PYTHON=python3.11`",
        r"(\d+\.\d+(?:\.\d+)?)",
        lambda: ".".join(map(str, sys.version_info[:3])),
    ),
    Tool(
        "Python's venv module (pip)",
        "22.3",
        f"`apt install python{_PYTHON}-venv`",
        r"pip (\d+\.\d+(?:\.\d+)?)",
        _ensurepip,
    ),
    Tool(
        "JDK",
        "17",
        "`apt install openjdk-17-jdk-headless`, or let JAVA_HOME name a newer one",
        r'version "(\d+(?:\.\d+){0,2})',
        lambda: _output([java_command(), "-version"]),
    ),
    # maven-dependency-plugin 3.8 needs 3.6.3.
    Tool("Maven", "3.6.3", "`apt install maven`", r"Maven (\d+\.\d+\.\d+)", _saying("mvn", "--version")),
    # What versitygw's go.mod asks for. Debian 12 has 1.19.
    Tool(
        "Go",
        "1.25",
        "Debian's and Ubuntu's own is often older: unpack a release from https://go.dev/dl into /usr/local"
        " and put /usr/local/go/bin first on PATH",
        r"go version go(\d+\.\d+(?:\.\d+)?)",
        _saying("go", "version"),
    ),
)
