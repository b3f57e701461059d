"""The schema registry: Apicurio, spoken to through its Confluent-compatible API."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from infra.local import java
from infra.local.artifacts import Artifact
from infra.local.server import HOST, NotReadyError, Site, get

VERSION = "3.0.9"
API = "/apis/ccompat/v7"

_HERE = Path(__file__).parent
_POM, _SUMS = _HERE / "pom.xml", _HERE / "jars.sha256"
_JAR = f"apicurio-registry-app-{VERSION}-runner.jar"


class Apicurio:
    """One registry. Implements `infra.local.server.Server`."""

    name = "registry"
    port_names = ("registry", "registry_management")

    def __init__(self, java_version: str) -> None:
        """Take the exact version of the Java in use: class archives fit one only."""
        jars = java.pinned("apicurio", VERSION, _POM, _SUMS)
        self.jars = Artifact(jars, f"Apicurio {VERSION} by Maven (109 MB)", self._fetch)
        title = f"Apicurio's class archive for Java {java_version}"
        self.archive = java.train(java.archive_key(jars, java_version), title, self)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What set-up builds for it."""
        return (self.jars, self.archive)

    def prepare(self, site: Site) -> list[str] | None:  # noqa: ARG002
        """Do nothing: it makes its database itself."""
        return None

    def command(self, site: Site, archive_to: Path | None = None) -> list[str]:  # noqa: ARG002
        """Return the command that runs the registry."""
        return java.command(
            archive=None if archive_to else self.archive.path / "classes.jsa",
            archive_to=archive_to,
            heap="256m",
            arguments=["-Djava.awt.headless=true", "-jar", str(self.jars.path / _JAR)],
        )

    def environment(self, site: Site) -> dict[str, str]:
        """Return its settings.

        A database file (H2) rather than Kafka (kafkasql): it starts beside the broker instead of after it (3 s
        against 8 s), and the registry stays up while a test has the broker killed. WRITE_DELAY=0, because H2
        otherwise acknowledges registrations up to half a second before they survive a kill.
        """
        database = site.directory(self.name) / "registry"
        return {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(site.ports["registry"]),
            "QUARKUS_MANAGEMENT_HOST": HOST,
            "QUARKUS_MANAGEMENT_PORT": str(site.ports["registry_management"]),
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{database};WRITE_DELAY=0",
            "LOG_LEVEL": "WARN",
        }

    def address(self, site: Site) -> str:
        """Return the URL of the Confluent-compatible API."""
        return f"http://{HOST}:{site.ports['registry']}{API}"

    def probe(self, site: Site, timeout: float) -> str:
        """List the subjects, which reads the database."""
        status, body = get(site.ports["registry"], f"{API}/subjects", timeout=timeout)
        try:
            json.loads(body)
        except ValueError:
            status = status if status != 200 else 502
        if status != 200:
            raise NotReadyError(f"{API}/subjects answers {status}")
        return VERSION

    @staticmethod
    def _fetch(directory: Path) -> None:
        java.maven(_POM, "dependency:copy", directory, _SUMS)
        (archive,) = directory.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(directory)  # noqa: S202 - its sha256 is pinned
        archive.unlink()
