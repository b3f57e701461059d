"""CPU seconds by kind of process, from looks at /proc: what a process used after its last look is lost."""

from __future__ import annotations

import psutil

_KINDS = {
    "sop materialize": "materializer",
    "sop index": "index",
    "sop learn": "learner",
    "examples.metaworld.robot": "robots",
    "benchmarks.paper.judge": "evaluation",
    "kafka.Kafka": "broker",
    "apicurio": "registry",
    "infra.local.clickhouse": "clickhouse",
    "versitygw": "object store",
    "producers": "spool publishers",
}


class Meter:
    """Adds up what the children of this process use."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[int, float], str] = {}
        self._seconds: dict[tuple[int, float], float] = {}

    def look(self) -> None:
        """Read the counters of every process below this one."""
        for child in psutil.Process().children(recursive=True):
            try:
                key = child.pid, child.create_time()
                if self._kinds.get(key, "other") == "other":  # until it has become what it is
                    self._kinds[key] = _kind(child.cmdline())
                used = child.cpu_times()
            except psutil.Error:
                continue
            self._seconds[key] = used.user + used.system

    def seconds(self) -> dict[str, float]:
        """CPU seconds by kind, the most first."""
        own = psutil.Process().cpu_times()
        total: dict[str, float] = {"harness": own.user + own.system}
        for key, seconds in self._seconds.items():
            total[self._kinds[key]] = total.get(self._kinds[key], 0.0) + seconds
        return {kind: round(s, 1) for kind, s in sorted(total.items(), key=lambda item: -item[1])}


def _kind(command: list[str]) -> str:
    text = " ".join(command).replace("-m sop", "sop")
    return next((kind for words, kind in _KINDS.items() if words in text), "other")
