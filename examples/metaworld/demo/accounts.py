"""What the robots say that they sent: their ledgers, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from examples.metaworld.ledger import Activated, Closed, Ended, Entry, Opened, PhaseBegan, Started
from schemas.events import EpisodeSource


@dataclass
class Account:
    """One robot's ledger as numbers.

    started: ids of episodes. ended: by id. activated: versions and when. phase: what it does now.
    closed: everything that it recorded is acknowledged by Kafka.
    """

    robot_id: str
    started: set[str] = field(default_factory=set)
    ended: dict[str, Ended] = field(default_factory=dict)
    activated: list[tuple[int, datetime]] = field(default_factory=list)
    phase: str = "starting"
    closed: bool = False

    @classmethod
    def of(cls, robot_id: str, entries: Iterable[Entry]) -> Account:
        """Add up a ledger."""
        account = cls(robot_id)
        for entry in entries:
            match entry:
                case Opened():
                    account.closed = False
                case PhaseBegan():
                    account.phase = entry.phase
                case Started():
                    account.started.add(entry.episode_id)
                case Ended():
                    account.ended[entry.episode_id] = entry
                case Activated():
                    account.activated.append((entry.version, entry.at))
                case Closed():
                    account.closed, account.phase = True, "done"
        return account

    def of_source(self, source: EpisodeSource) -> list[Ended]:
        """Ended episodes of one source, in order."""
        return [ended for ended in self.ended.values() if ended.source is source]

    @property
    def interventions(self) -> int:
        """Interventions of all ended episodes."""
        return sum(ended.interventions for ended in self.ended.values())

    @property
    def steps(self) -> int:
        """Steps of all ended episodes."""
        return sum(ended.steps for ended in self.ended.values())

    @property
    def simulated_seconds(self) -> float | None:
        """Simulated time of the last online end; None before the first."""
        ends = [ended.simulated_at for ended in self.of_source(EpisodeSource.ONLINE)]
        return ends[-1] if ends else None

    @property
    def policy_version(self) -> int:
        """Version that was activated last; 0 before the first."""
        return self.activated[-1][0] if self.activated else 0


def discrepancies(accounts: Mapping[str, Account]) -> list[str]:
    """Why the ledgers cannot be believed; empty when they can."""
    found = []
    for robot_id, account in accounts.items():
        if not account.closed:
            found.append(f"{robot_id}'s ledger is not closed: not everything is known to be acknowledged")
        if unfinished := account.started - account.ended.keys():
            found.append(f"{robot_id} began {len(unfinished)} episodes that it did not end")
    return found


def evaluated(accounts: Mapping[str, Account]) -> dict[int, tuple[int, int]]:
    """Evaluation episodes and successes by policy version."""
    episodes: Counter[int] = Counter()
    successes: Counter[int] = Counter()
    for account in accounts.values():
        for ended in account.of_source(EpisodeSource.EVALUATION):
            episodes[ended.policy_version] += 1
            successes[ended.policy_version] += ended.success
    return {version: (count, successes[version]) for version, count in sorted(episodes.items())}
