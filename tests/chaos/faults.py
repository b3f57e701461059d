"""Faults done to processes and servers while a run goes on. Each counts itself once it really happened."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from infra.local.stack import Stack
from tests.chaos.processes import Fleet, Process
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Fault
from tests.chaos.timing import SESSION

TOO_SMALL = 120
"""Bytes. A dead letter's batch is larger, with its headers. A transaction's marker (78) must still fit: a broker
that cannot write one leaves the transaction open for ever."""

REFUSED_SECONDS = 2.0


class Injector:
    """Begins and ends faults. What is still going on when the traffic is over is ended by `heal`."""

    def __init__(self, stack: Stack, proxy: Proxy, fleet: Fleet) -> None:
        self._stack, self._proxy, self._fleet = stack, proxy, fleet
        self.counts: Counter[str] = Counter()
        self._under_way: dict[str, tuple[float, Callable[[], None]]] = {}
        """When a fault may end, and how, by kind."""

    def begin(self, fault: Fault) -> None:
        """Start a fault; faults of traffic are in the traffic."""
        start = getattr(self, f"_{fault.kind.replace('-', '_')}", None)
        if start is not None:
            ending = start(fault)
            if ending is not None:
                self._under_way[fault.kind] = time.monotonic() + fault.seconds, ending

    def end(self, fault: Fault) -> None:
        """End a fault, if it is one that lasts, and has lasted long enough."""
        due, _ = self._under_way.get(fault.kind, (math.inf, None))
        if time.monotonic() >= due:
            self._under_way.pop(fault.kind)[1]()

    def heal(self) -> None:
        """End everything, each in its time."""
        for kind, (due, ending) in sorted(self._under_way.items(), key=lambda item: item[1][0]):
            time.sleep(max(0.0, due - time.monotonic()))
            del self._under_way[kind]
            ending()

    def _zombie(self, _fault: Fault) -> Callable[[], None] | None:
        """A member that freezes itself at a stage is a zombie already; else the oldest is frozen anywhere."""
        if any(member.plan.freeze_at for member in self._fleet.members) or not self._fleet.members:
            return None
        member = self._fleet.members[0]
        member.freeze()
        return lambda: self.thaw(member)

    def thaw(self, member: Process) -> None:
        """Continue a frozen member once its session is over."""
        since = member.frozen_since or time.monotonic()
        time.sleep(max(0.0, since + SESSION - time.monotonic()))
        if member.alive:
            self.counts["zombie"] += 1
        member.thaw()

    def _join(self, _fault: Fault) -> None:
        self._fleet.start_member()
        self.counts["join"] += 1

    def _leave(self, _fault: Fault) -> None:
        self._fleet.start_member()
        members = [member for member in self._fleet.members if member.frozen_since is None]
        self._fleet.leave(members[0])
        self.counts["leave"] += 1

    def _index_kill(self, _fault: Fault) -> Callable[[], None]:
        if self._fleet.index is not None:
            self._fleet.index.kill()
            self.counts["index-kill"] += 1
        return lambda: None

    def _kill(self, server: str, kind: str) -> Callable[[], None]:
        self._stack.kill(server)
        self.counts[kind] += 1
        return lambda: self._stack.restart(server)

    def _broker_kill(self, _fault: Fault) -> Callable[[], None]:
        return self._kill("broker", "broker-kill")

    def _s3_kill(self, _fault: Fault) -> Callable[[], None]:
        return self._kill("object_store", "s3-kill")

    def _clickhouse_kill(self, _fault: Fault) -> Callable[[], None]:
        return self._kill("clickhouse", "clickhouse-kill")

    def _clickhouse_stall(self, _fault: Fault) -> Callable[[], None]:
        self._stack.pause("clickhouse")
        self.counts["clickhouse-stall"] += 1
        return lambda: self._stack.resume("clickhouse")

    def _registry_outage(self, _fault: Fault) -> Callable[[], None]:
        """The registry goes, and a member with it: its successor has to look every schema up."""
        self._stack.kill("registry")
        if self._fleet.members:
            self._fleet.members[0].kill()
        self.counts["registry-outage"] += 1
        return lambda: self._stack.restart("registry")

    def _s3_stall(self, fault: Fault) -> Callable[[], None]:
        if fault.detail != "server":
            return self._misbehave({"proxy": "stall", "hole": "hole"}[fault.detail], "s3-stall")
        self._stack.pause("object_store")
        self.counts["s3-stall"] += 1
        return lambda: self._stack.resume("object_store")

    def _s3_errors(self, fault: Fault) -> Callable[[], None]:
        return self._misbehave(fault.detail, "s3-errors")

    def _s3_cut(self, fault: Fault) -> Callable[[], None]:
        return self._misbehave(fault.detail, "s3-cut")

    def _misbehave(self, mode: str, kind: str) -> Callable[[], None]:
        before = self._proxy.hits.get(mode, 0)
        self._proxy.set(mode)

        def stop() -> None:
            until = time.monotonic() + 3.0
            while self._proxy.hits.get(mode, 0) == before and time.monotonic() < until:
                time.sleep(0.05)
            self._proxy.set("pass")
            self.counts[kind] += self._proxy.hits.get(mode, 0) > before

        return stop

    def _dead_letter_failure(self, _fault: Fault) -> Callable[[], None]:
        """The broker itself refuses what the transaction holds."""
        before = limit_dead_letters(self._stack, TOO_SMALL)
        self.counts["dead-letter-failure"] += 1

        def allow() -> None:
            time.sleep(REFUSED_SECONDS)  # what was sent last has to be refused too
            limit_dead_letters(self._stack, before)

        return allow

    def _spill_full(self, _fault: Fault) -> Callable[[], None]:
        """No room for spilled steps, until some member ran into that."""
        self._fleet.full_disk.touch()
        seen = list(self._fleet.members)

        def make_room() -> None:
            until = time.monotonic() + 3.0
            while not (hit := _found_full([*seen, *self._fleet.members])) and time.monotonic() < until:
                time.sleep(0.05)
            self._fleet.full_disk.unlink()
            self.counts["spill-full"] += hit

        return make_room


def _found_full(members: list[Process]) -> bool:
    """Whether a member found the disk full."""
    return any("disk full" in member.marks() for member in members)


def limit_dead_letters(stack: Stack, limit: int) -> int:
    """Set `max.message.bytes` of dead-letters; what it was."""
    admin = AdminClient({"bootstrap.servers": stack.address("broker"), "log_level": 2})
    resource = ConfigResource(ConfigResource.Type.TOPIC, "dead-letters")
    [found] = admin.describe_configs([resource]).values()
    before = int(found.result(30)["max.message.bytes"].value)
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ConfigResource.Type.TOPIC, "dead-letters", incremental_configs=[entry])
    [done] = admin.incremental_alter_configs([change]).values()
    done.result(30)
    return before
