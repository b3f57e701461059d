"""How this stack runs Java servers: small, and quick to start."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from infra.local.artifacts import Artifact, BuildError
from infra.local.credentials import load
from infra.local.ports import Ports
from infra.local.process import spawn, stop
from infra.local.progress import run
from infra.local.server import NotReadyError, Server, Site
from infra.local.toolcheck import java_command

# One thread of garbage collection and the quick compiler halve the start: 3-4 s instead of 6.8 s for the broker,
# and 0.8-1.4 s with an AppCDS archive (parsed classes, mapped from a file).
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")


def command(*, archive: Path | None, heap: str, arguments: list[str], archive_to: Path | None = None) -> list[str]:
    """Return the command for a Java server with its class archive; `archive_to` records one at its end instead."""
    sharing = [f"-XX:SharedArchiveFile={archive}"] if archive and archive.exists() else []
    recording = [f"-XX:ArchiveClassesAtExit={archive_to}"] if archive_to else []
    return [java_command(), *_QUICK, f"-Xmx{heap}", *sharing, *recording, *arguments]


def pinned(name: str, version: str, *files: Path) -> str:
    """Return a cache key from a name, a version and the content of the files that pin it."""
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return f"{name}-{version}-{digest[:8]}"


def archive_key(jars: str, java_version: str) -> str:
    """Return the cache key of the class archive: it fits one set of jars, one Java and one processor only."""
    java = re.sub(r"[^0-9A-Za-z.+-]", "_", java_version)
    return f"{jars}-appcds-{java}-{os.uname().machine}"


def maven(pom: Path, goal: str, output: Path, sums: Path) -> None:
    """Copy the artifacts that `pom` names into `output`, then check those listed in `sums` and drop the others.

    Raises:
        BuildError: a file is missing or is not what was pinned.
        subprocess.CalledProcessError: Maven failed; its output was shown.
    """
    # -C: a checksum that does not match the repository's own is an error, not a warning.
    run(
        [
            "mvn",
            "--batch-mode",
            "--quiet",
            "-C",
            "-f",
            str(pom),
            goal,
            f"-DoutputDirectory={output}",
            "-Dmdep.useBaseVersion=true",
        ]
    )
    wanted = {name: sha256 for sha256, name in (line.split() for line in sums.read_text().splitlines())}
    for file in output.iterdir():
        if file.name not in wanted:
            file.unlink()
    for name, sha256 in wanted.items():
        file = output / name
        if not file.is_file():
            raise BuildError(f"{pom} did not bring {name}, which {sums} lists")
        if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise BuildError(f"{name} is not the pinned one (sha256 in {sums}); remove it from ~/.m2/repository")


class Recordable(Server, Protocol):
    """A Java server that can leave a class archive behind."""

    def command(self, site: Site, archive_to: Path | None = None) -> list[str]:
        """Return the command that runs it; with `archive_to` it writes its archive there when it ends."""


def train(key: str, title: str, server: Recordable) -> Artifact:
    """Return the artifact of a class archive, made by running the server once, until it answers."""

    def build(directory: Path) -> None:
        archive = directory / "classes.jsa"
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            _record(server, Path(scratch), archive)
        if not archive.is_file():
            raise BuildError(f"{title}: Java wrote no archive")

    return Artifact(key=key, title=title, build=build)


def _record(server: Recordable, scratch: Path, archive: Path) -> None:
    ports = Ports(scratch / "ports.json", server.port_names)
    try:
        site = Site(scratch, ports.numbers, load(scratch / "secrets"))
        site.directory(server.name).mkdir()
        preparation = server.prepare(site)
        if preparation:
            run(preparation)
        log = scratch / "log"
        environment = {**os.environ, **server.environment(site)}
        process = spawn(server.command(site, archive), environment=environment, log=log, cwd=scratch)
        try:
            _until_ready(server, site, process, log)
        finally:
            stop([process], patience=60)  # writing the archive takes 2 to 5 s
    finally:
        ports.close()


def _until_ready(server: Recordable, site: Site, process: Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            server.probe(site, timeout=5)
        except NotReadyError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise BuildError(f"the {server.name} did not start ({error}); its log ends:\n{tail}") from error
            time.sleep(0.1)
        else:
            return
