"""One seed against the servers: traffic in rounds, faults between them, then quiet, then the check."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.checker import Verdict, check
from tests.chaos.faults import Injector
from tests.chaos.harness import Harness
from tests.chaos.ledger import Ledger
from tests.chaos.moments import kills_with_open_episode
from tests.chaos.processes import Fleet, Process
from tests.chaos.readings import OUTPUTS, Offsets, Readings
from tests.chaos.schedule import ROUNDS, MemberPlan, Schedule
from tests.chaos.timing import EPISODE_TIMEOUT, SESSION
from tests.chaos.traffic import Traffic, traffic_of

PATIENCE = 240.0
"""Seconds without any progress after which a run is stuck; far above every pause that the processes make."""


WARM_SECONDS = 30.0
"""Longest wait for a member to own partitions. Nothing is concluded from it; the run begins all the same."""
STEP_SECONDS = 1.5
"""Longest wait for members to keep step with the rounds; a longer one would let episodes time out."""
MOST_CRASHES = 5
"""Members that end without being asked to; more would only be more of the same."""


@dataclass
class Outcome:
    """What became of a seed."""

    schedule: Schedule
    verdict: Verdict
    events: int
    faults: Counter[str]
    seconds: float
    notes: list[str] = field(default_factory=list)


class Run:
    """A schedule, executed once."""

    def __init__(
        self,
        harness: Harness,
        schedule: Schedule,
        *,
        mutation: str = "",
        salt: str = "",
        patience: float = PATIENCE,
    ) -> None:
        self._harness = harness
        self._schedule = schedule
        self._salt = salt
        self._patience = patience
        self._fleet: Fleet = harness.fleet(mutation, little_memory=schedule.has("spill-full"))
        self._injector = Injector(harness.stack, harness.proxy, self._fleet)
        self._plans = list(schedule.members)
        self._ledger = Ledger()
        self._planned: Counter[str] = Counter()
        self._stuck: list[str] = []
        self._deaths: list[float] = []
        """When members ended themselves, milliseconds since the epoch."""

    def execute(self) -> Outcome:
        """Send, hurt, heal, wait, read, compare."""
        began = time.monotonic()
        harness, schedule = self._harness, self._schedule
        starts = harness.reader.ends(OUTPUTS)
        traffic = traffic_of(schedule, self._salt)
        everything = {id(event): event for events in (*traffic.rounds, traffic.afterwards) for event in events}
        self._planned.update(event.episode_id for event in everything.values() if event.counted)
        harness.reader.put_objects(traffic.objects)
        try:
            if self._fleet.index is None:
                self._fleet.start_index()
            self._fleet.start_member(self._next_plan())
            if schedule.warm:
                self._fleet.await_owner(WARM_SECONDS)
            self._send_rounds(traffic)
            self._settle("after the rounds")
            if traffic.afterwards:
                self._send_afterwards(traffic)
                self._settle("after the late records")
            readings = self._read(starts)
        finally:
            self._injector.heal()
            self._fleet.stop(kill=bool(self._stuck))
            harness.index = self._fleet.index
        verdict = check(self._ledger, readings, EPISODE_TIMEOUT)
        for what in self._stuck:
            verdict.add("stuck", what)
        for what in self._fleet.crashes:
            verdict.add("crash", what)
        faults = self._injector.counts + Counter(traffic.counts)
        stream = readings.announcements
        faults["kill-with-open-episode"] = kills_with_open_episode(
            self._deaths, self._ledger, self._planned, stream
        )
        return Outcome(schedule, verdict, self._ledger.records, faults, time.monotonic() - began)

    def _next_plan(self) -> MemberPlan:
        return self._plans.pop(0) if self._plans else MemberPlan()

    def _send_rounds(self, traffic: Traffic) -> None:
        committed = self._harness.progress()[1] if self._schedule.in_step else {}
        for round_ in range(ROUNDS):
            for fault in self._schedule.ending(round_):
                self._injector.end(fault)
            for fault in self._schedule.starting(round_):
                self._injector.begin(fault)
            self._harness.wire.send(traffic.rounds[round_], self._ledger)
            self._harness.wire.flush(self._schedule.pace)
            self._tend()
            time.sleep(self._schedule.pace)
            if self._schedule.in_step:
                committed = self._await_commit(committed)
        self._injector.heal()

    def _await_commit(self, before: Offsets) -> Offsets:
        """Wait until the group's offsets are others than `before`, or a member died; what they are."""
        until, dead = time.monotonic() + STEP_SECONDS, self._injector.counts.total()
        while True:
            self._tend()
            now = self._harness.progress()[1]
            if now != before or self._injector.counts.total() != dead or time.monotonic() > until:
                return now
            time.sleep(0.05)

    def _send_afterwards(self, traffic: Traffic) -> None:
        """What comes hours later finds another member, which remembers nothing."""
        old = list(self._fleet.members)
        for member in old:
            self._fleet.leave(member)
        self._fleet.gone()
        self._fleet.start_member()
        self._harness.wire.send(traffic.afterwards, self._ledger)

    def _tend(self) -> None:
        """Note deaths, replace the dead, thaw the frozen."""
        if len(self._fleet.crashes) >= MOST_CRASHES:
            return
        for process in self._fleet.gone():
            for mark in process.marks():
                if mark.startswith("died at"):
                    self._injector.counts[f"kill-{mark.removeprefix('died at ')}"] += 1
                    self._deaths.append(process.last_words_ms)
        if self._fleet.index is None:
            self._fleet.start_index()
        for member in self._fleet.members:
            self._freeze_watch(member)
        if not [member for member in self._fleet.members if member.frozen_since is None]:
            self._fleet.start_member(self._next_plan())

    def _freeze_watch(self, member: Process) -> None:
        frozen = [mark for mark in member.marks() if mark.startswith("frozen at")] if member.plan.freeze_at else []
        if frozen and member.frozen_since is None and not member.thawed:
            member.frozen_since = time.monotonic()
        elif member.frozen_since is not None and member.plan.freeze_at and member.frozen_for > SESSION:
            member.thawed = True
            self._injector.thaw(member)

    def _settle(self, when: str) -> None:
        """Wait until everything was acknowledged, read and committed; give up only if nothing moves any more."""
        moved = time.monotonic()
        before: object = None
        while True:
            self._tend()
            missing = self._harness.wire.flush(0.3)
            ends, committed = self._harness.progress()
            lag = {
                place: end - committed.get(place, 0)
                for place, end in ends.items()
                if end > committed.get(place, 0)
            }
            busy = any(member.frozen_since is not None for member in self._fleet.members)
            if not missing and not lag and not busy:
                return
            state = (missing, committed)
            if state != before:
                before, moved = state, time.monotonic()
            if time.monotonic() - moved > self._patience or len(self._fleet.crashes) >= MOST_CRASHES:
                tails = "\n".join(f"{m.name}:\n{m.tail(5)}" for m in self._fleet.members)
                self._stuck.append(f"nothing moves {when}: lag {lag}, unacknowledged {missing}\n{tails}")
                return
            time.sleep(0.2)

    def _read(self, starts: Offsets) -> Readings:
        """Everything, once the index has caught up with what it has to read."""
        reader = self._harness.reader
        announcements, letters = reader.stream(starts)
        self._await_index()
        newest: dict[str, tuple[int, str]] = {}
        for announced in announcements:
            datum = announced.datum
            newest[datum["episode_id"]] = max(
                newest.get(datum["episode_id"], (0, "")), (datum["revision"], datum["payload_uri"])
            )
        prefix = f"c{self._salt}-{self._schedule.seed}-"
        places = " OR ".join(
            f"(topic = '{topic}' AND partition = {number} AND offset >= {offset})"
            for (topic, number), offset in self._first_places().items()
        )
        return Readings(
            announcements,
            letters,
            reader.objects([uri for _, uri in newest.values()]),
            reader.rows(f"SELECT * FROM episodes WHERE startsWith(robot_id, '{prefix}')"),
            reader.rows(f"SELECT * FROM interventions WHERE startsWith(robot_id, '{prefix}')"),
            reader.rows(f"SELECT topic, partition, offset, reason, value FROM dead_letters WHERE {places}"),
        )

    def _first_places(self) -> Offsets:
        first: Offsets = {}
        for topic, partition, offset in self._ledger.at:
            first[(topic, partition)] = min(first.get((topic, partition), offset), offset)
        return first

    def _await_index(self) -> None:
        until, before = time.monotonic() + self._patience, None
        while lag := self._harness.index_lag():
            self._tend()
            if lag != before:
                before, until = lag, time.monotonic() + self._patience
            if time.monotonic() > until or len(self._fleet.crashes) >= MOST_CRASHES:
                tail = self._fleet.index.tail(5) if self._fleet.index else "no index"
                self._stuck.append(f"the index does not catch up: {lag}\n{tail}")
                return
            time.sleep(0.2)
