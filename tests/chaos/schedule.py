"""From a seed to a schedule of faults: a pure function, so that a run can be repeated by its seed.

A run sends its records in rounds. A fault begins before the round `at` and ends before the round `until`; what is
told to a member (where to die, where to freeze) is in `members`, in the order in which members are started.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from tests.chaos.kinds import KINDS, SERVER, SLOW, STAGES, TRAFFIC
from tests.chaos.timing import LEAST, LONG_SHARE, OUTAGE, OUTAGES

ROUNDS = 12
STALLS = ("proxy", "server", "hole")
"""A door that passes nothing on for a while, a server that stands still, connections that stay silent for ever."""
FREEZE_STAGES = ("after-payload", "before-transaction", "inside-transaction", "before-commit")


@dataclass(frozen=True)
class Fault:
    """One fault; rounds `at` <= r < `until`, and `seconds` at least. `detail` chooses among its forms."""

    kind: str
    at: int
    until: int
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class MemberPlan:
    """How a member is started. It dies, or freezes, at the nth time that it comes to a stage."""

    die_at: str = ""
    freeze_at: str = ""
    nth: int = 1


@dataclass(frozen=True)
class Schedule:
    """Everything that a seed decides."""

    seed: int
    events: int
    robots: int
    members: tuple[MemberPlan, ...]
    faults: tuple[Fault, ...]
    pace: float = 0.4
    """Seconds between two rounds."""
    in_step: bool = False
    """Whether a round waits a moment for members to commit something of the one before."""
    warm: bool = True
    """Whether the first round waits for a member that owns partitions; else it has to catch up."""

    def detail(self, kind: str) -> str:
        """The form of the first fault of this kind; empty when it is left to chance."""
        return next((fault.detail for fault in self.faults if fault.kind == kind), "")

    def has(self, kind: str) -> bool:
        """Whether a fault of this kind is planned."""
        return any(fault.kind == kind for fault in self.faults)

    def starting(self, round_: int) -> list[Fault]:
        """Faults that begin before this round."""
        return [fault for fault in self.faults if fault.at == round_]

    def ending(self, round_: int) -> list[Fault]:
        """Faults that may end before this round."""
        return [fault for fault in self.faults if fault.until <= round_]


def schedule_of(
    seed: int, *, events: int = 10_000, robots: int = 8, kinds: Collection[str] = tuple(KINDS)
) -> Schedule:
    """The schedule of a seed. Consecutive seeds take turns through all kinds; the rest is drawn.

    Args:
        seed: any integer.
        events: records to send, about.
        robots: emulated robots.
        kinds: faults to choose from.
    """
    chance = random.Random(f"schedule {seed}")
    stages = [stage for stage in STAGES if f"kill-{stage}" in kinds]
    servers = [kind for kind in (*SERVER, "index-kill", "zombie") if kind in kinds]
    members = _members(chance, seed, stages)
    faults: list[Fault] = []
    chosen = _turn(chance, seed, servers)
    for kind in chosen:
        at = chance.randrange(1, ROUNDS - 4)
        faults.append(Fault(kind, at, at + chance.randrange(2, 4), _detail(chance, kind), _seconds(chance, kind)))
    if "zombie" in chosen and chance.random() < 0.7:
        members.insert(0, MemberPlan(freeze_at=chance.choice(FREEZE_STAGES), nth=chance.randint(1, 3)))
    if "join" in kinds and ("zombie" in chosen or chance.random() < 0.4):
        faults.append(Fault("join", 1 if "zombie" in chosen else chance.randrange(1, 6), ROUNDS))
    if "leave" in kinds and chance.random() < 0.3:
        faults.append(Fault("leave", chance.randrange(6, ROUNDS), ROUNDS))
    for kind in TRAFFIC:
        if kind in kinds and chance.random() < 0.6:
            faults.append(Fault(kind, 0, ROUNDS))
    order = sorted(faults, key=lambda fault: (fault.at, fault.kind))
    warm = chance.random() < 0.7
    return Schedule(seed, events, robots, tuple(members), tuple(order), warm=warm)


def _members(chance: random.Random, seed: int, stages: list[str]) -> list[MemberPlan]:
    """The first members die where it is their stage's turn; later ones live."""
    if not stages:
        return []
    first = stages[seed % len(stages)]
    plans = [MemberPlan(die_at=first, nth=1 if first == "during-takeover" else chance.randint(1, 4))]
    if chance.random() < 0.35:
        plans.append(MemberPlan(die_at=chance.choice(stages), nth=chance.randint(1, 3)))
    return plans


def _turn(chance: random.Random, seed: int, servers: list[str]) -> list[str]:
    if not servers:
        return []
    chosen = [servers[seed % len(servers)]]
    others = [kind for kind in servers if kind not in chosen and kind not in SLOW]
    return chosen + chance.sample(others, min(len(others), chance.randint(0, 2)))


def _detail(chance: random.Random, kind: str) -> str:
    forms = {"s3-errors": ("500", "503"), "s3-cut": ("body", "answer"), "s3-stall": STALLS}
    return chance.choice(forms[kind]) if kind in forms else ""


def _seconds(chance: random.Random, kind: str) -> float:
    """What a fault lasts at least, whatever the rounds take."""
    return OUTAGE if kind in OUTAGES and chance.random() < LONG_SHARE else LEAST.get(kind, 0.0)
