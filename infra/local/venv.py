"""The clone's Python environment, `.venv`, from pinned and hashed requirements; and the pins themselves."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from infra.files import write_atomically
from infra.local.artifacts import Artifact, BuildError, ensure, locked
from infra.local.progress import run, step

_LOCK_OPTIONS = (
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
)


def install(root: Path) -> None:
    """Make `root/.venv` hold exactly requirements/dev.txt and the project itself, editable.

    A stamp in the environment says from what it was made: an unchanged one is left alone, an interrupted one
    has no stamp and is completed.

    Raises:
        subprocess.CalledProcessError: the installer failed; its output was shown.
    """
    environment = root / ".venv"
    stamp, fingerprint = environment / ".made-from", _fingerprint(root)
    with locked(f"venv-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}", waiting_for=".venv"):
        if stamp.is_file() and stamp.read_text() == fingerprint and (environment / "bin" / "sop").is_file():
            return
        uv = str(_uv(root))
        variables = {**os.environ, "VIRTUAL_ENV": str(environment)}
        with step("Python environment (.venv; the first time downloads about 2.5 GB)", grows=None):
            stamp.unlink(missing_ok=True)
            if not _runs_here(environment):
                run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)])
            # Nothing is built from source: what is installed is what was hashed.
            options = ["--quiet", "--require-hashes", "--only-binary", ":all:"]
            run([uv, "pip", "sync", *options, str(root / "requirements" / "dev.txt")], cwd=root, env=variables)
            # The build backend came with dev.txt, so that building the project itself fetches nothing.
            options = ["--quiet", "--no-deps", "--no-build-isolation", "--offline"]
            run([uv, "pip", "install", *options, "--editable", str(root)], cwd=root, env=variables)
            write_atomically(stamp, fingerprint)


def lock_requirements(root: Path) -> None:
    """Write requirements/*.txt anew from pyproject.toml and the .in files beside them.

    Raises:
        subprocess.CalledProcessError: the resolver failed; its output was shown.
    """
    with step("requirements/*.txt"):
        uv = str(_uv(root))
        variables = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
        compiling = [uv, "pip", "compile", "--quiet", "--upgrade", *_LOCK_OPTIONS]
        for output, *inputs in (
            ("uv.txt", "requirements/uv.in"),
            ("dev.txt", "pyproject.toml", "requirements/build.in", "--all-extras"),
            ("base.txt", "pyproject.toml", "--constraint", "requirements/dev.txt"),
            ("robot.txt", "requirements/robot.in", "--constraint", "requirements/dev.txt"),
        ):
            run([*compiling, *inputs, "--output-file", f"requirements/{output}"], cwd=root, env=variables)


def _uv(root: Path) -> Path:
    """Return the pinned installer; pip, which checks its hash, brings it."""
    pins = root / "requirements" / "uv.txt"
    version = next(
        (line.split("==")[1].split()[0] for line in pins.read_text().splitlines() if line.startswith("uv==")), ""
    )
    if not version:
        raise BuildError(f"{pins} pins no uv; restore it from git")

    def build(directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            run([sys.executable, "-m", "venv", scratch])
            python = str(Path(scratch) / "bin" / "python")
            options = [
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
            ]
            run([python, "-m", "pip", "install", *options, "--requirement", str(pins)])
            shutil.copy2(Path(scratch) / "bin" / "uv", directory / "uv")

    machine = os.uname().machine
    return (
        ensure(Artifact(key=f"uv-{version}-{machine}", title=f"uv {version}, the installer", build=build)) / "uv"
    )


def _runs_here(environment: Path) -> bool:
    """Say whether the environment was made by this very Python and can be updated in place."""
    settings = environment / "pyvenv.cfg"
    home = f"home = {Path(sys.executable).resolve().parent}"
    return (
        (environment / "bin" / "python").exists()
        and settings.is_file()
        and home in settings.read_text().splitlines()
    )


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256(f"{sys.version} {sys.executable} {root}".encode())
    for name in ("pyproject.toml", "requirements/dev.txt", "requirements/uv.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest() + "\n"
