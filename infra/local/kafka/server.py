"""The broker: Apache Kafka, one KRaft node that is broker and controller."""

from __future__ import annotations

import base64
import os
import socket
import struct
import uuid
from pathlib import Path

from infra.files import write_atomically
from infra.local import java
from infra.local.artifacts import Artifact
from infra.local.server import HOST, NotReadyError, Site

VERSION = "4.3.1"

_HERE = Path(__file__).parent
_POM, _SUMS = _HERE / "pom.xml", _HERE / "jars.sha256"

# One replica of everything. One partition for the internal topics: 50 each would cost seconds at first use.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
# A fixed voter, not --standalone: that would write the port into the log, and a restart may get another one.
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{broker}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# Default 45 s: how long the partitions of a killed consumer wait for another one.
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.heartbeat.interval.ms=1000
# Default 10 s: a transaction that a killed member left open is aborted this soon after its own timeout.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# Default 9 s, for which a broker that was killed would have to wait before it may register again.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
message.max.bytes=10485760
replica.fetch.max.bytes=10485760
# 128 MB by default; compaction here has thousands of keys, not millions.
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.backoff.ms=500
"""


class Kafka:
    """One broker. Implements `infra.local.server.Server`."""

    name = "broker"
    port_names = ("broker", "controller")

    def __init__(self, java_version: str) -> None:
        """Take the exact version of the Java in use: class archives fit one only."""
        jars = java.pinned("kafka", VERSION, _POM, _SUMS)
        self.jars = Artifact(jars, f"Kafka {VERSION} by Maven", self._fetch)
        title = f"Kafka's class archive for Java {java_version}"
        self.archive = java.train(java.archive_key(jars, java_version), title, self)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What set-up builds for it."""
        return (self.jars, self.archive)

    def prepare(self, site: Site) -> list[str] | None:
        """Write server.properties; return the command that formats the log directory if it is new."""
        logs = site.directory(self.name) / "logs"
        text = _PROPERTIES.format(
            host=HOST, broker=site.ports["broker"], controller=site.ports["controller"], logs=logs
        )
        write_atomically(self._properties(site), text)
        if (logs / "meta.properties").exists():
            return None
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", _cluster_id()]
        # --ignore-formatted: an interrupted formatting is completed.
        return self._java([*tool, "--config", str(self._properties(site)), "--ignore-formatted"])

    def command(self, site: Site, archive_to: Path | None = None) -> list[str]:
        """Return the command that runs the broker."""
        return self._java(["kafka.Kafka", str(self._properties(site))], archive_to)

    def environment(self, site: Site) -> dict[str, str]:  # noqa: ARG002
        """Return nothing: the broker has no secrets here."""
        return {}

    def address(self, site: Site) -> str:
        """Return host:port for bootstrap.servers."""
        return f"{HOST}:{site.ports['broker']}"

    def probe(self, site: Site, timeout: float) -> str:
        """Ask for the cluster's metadata: the broker counts itself only once it serves."""
        if _brokers(site.ports["broker"], timeout) < 1:
            raise NotReadyError("the broker has not joined its cluster yet")
        return VERSION

    def _java(self, arguments: list[str], archive_to: Path | None = None) -> list[str]:
        jars = ":".join(str(jar) for jar in sorted(self.jars.path.glob("*.jar")))
        logging = [
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        ]
        return java.command(
            archive=None if archive_to else self.archive.path / "classes.jsa",
            archive_to=archive_to,
            heap="768m",
            arguments=["-Djava.awt.headless=true", *logging, "-cp", jars, *arguments],
        )

    @staticmethod
    def _properties(site: Site) -> Path:
        return site.directory(Kafka.name) / "server.properties"

    @staticmethod
    def _fetch(directory: Path) -> None:
        java.maven(_POM, "dependency:copy-dependencies", directory, _SUMS)


def _cluster_id() -> str:
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # the tool would read it as an option
    return text


def _brokers(port: int, timeout: float) -> int:
    """Return how many brokers the one at `port` knows: Kafka's Metadata request (key 3, version 1), by hand.

    A client library would log its own tries and take longer to give up than a probe may.
    """
    client = b"sop-stack"
    request = struct.pack(f">hhih{len(client)}si", 3, 1, os.getpid() & 0x7FFFFFFF, len(client), client, 0)
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answers:
                header = answers.read(12)  # length, correlation id, number of brokers
    except OSError as error:
        raise NotReadyError(f"port {port}: {error}") from error
    if len(header) < 12:
        raise NotReadyError(f"port {port}: the connection was closed")
    return int(struct.unpack(">iii", header)[2])
