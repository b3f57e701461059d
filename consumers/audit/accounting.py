"""Robot topics against what became of their events. Pure: claims in, findings out.

Every event below the materializer's committed offsets must be in its episode's newest revision, or on
dead-letters: a committed offset is the first of the oldest episode that is open, so nothing below it is under way.
At or after it an event that is nowhere yet belongs to an open episode, or was not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from consumers.audit.announced import Announcements, spoken
from consumers.audit.buried import Buried, Owner, Place
from consumers.audit.claims import Claim, Claims, Integers
from consumers.audit.findings import Finding, Kind, Where
from consumers.ranges import RangeSet


@dataclass(slots=True)
class _Lost:
    sequences: RangeSet = field(default_factory=RangeSet)
    offsets: RangeSet = field(default_factory=RangeSet)


class Accounting:
    """Which events are accounted for.

    Args:
        announcements: the training stream, read after `committed` was asked for.
        buried: dead-letters, likewise.
        committed: the materializer's next offsets by partition.
        whole_dead_letters: whether dead-letters still holds everything it ever held.
    """

    def __init__(
        self,
        announcements: Announcements,
        buried: Buried,
        committed: Mapping[Place, int],
        *,
        whole_dead_letters: bool = True,
    ) -> None:
        self._announcements = announcements
        self._buried = buried
        self._committed = committed
        self._whole = whole_dead_letters
        self._lost: dict[tuple[Place, Owner | None], _Lost] = {}
        self.open: Counter[Owner] = Counter()
        """Events of episodes that are still open, or were not read yet."""
        self.unread = 0
        """Records past the committed offsets that do not say whose they are."""
        self.checked = 0

    def add(self, batch: Claims) -> None:
        """Take in what records say."""
        for claim in batch.claims:
            self.checked += len(claim.sequences)
            if not self._announced_whole(claim):
                self._add_singly(claim)
        committed = self._committed.get(batch.place, 0)
        for offset in batch.nameless:
            self.checked += 1
            if self._buried.has(batch.place, offset):
                continue
            if offset >= committed:
                self.unread += 1
            else:
                self._lost.setdefault((batch.place, None), _Lost()).offsets.add(offset)

    def findings(self) -> Iterator[Finding]:
        """Events that are nowhere, by episode and partition."""
        for (place, owner), lost in self._lost.items():
            first = min(low for low, _ in lost.offsets)
            whose = "records that cannot be read"
            if owner is not None:
                whose = f"episode {owner[0]} robot {owner[1]} boot {owner[2]} sequences {spoken(lost.sequences)}"
            yield Finding(
                Kind.MISSING,
                Where.ROBOT_TOPICS,
                f"{whose} at {place[0]}[{place[1]}]@{spoken(lost.offsets)}",
                f"{lost.offsets.count()} records, neither in the newest revision of their episode nor on "
                f"dead-letters. The log still holds them: let the materializer read again from offset {first} "
                f"(docs/operations.md, Events are missing)",
                episode_id=owner[0] if owner else None,
                topic=place[0],
                partition=place[1],
                offset=first,
            )

    def _announced_whole(self, claim: Claim) -> bool:
        """The usual case, at a glance: all sequences are in the newest revision."""
        episode = self._announcements.episodes.get(claim.owner[0])
        if episode is None or (episode.robot_id, episode.boot_epoch) != claim.owner[1:]:
            return False
        return all(episode.sequences.covers(low, high) for low, high in runs(claim.sequences))

    def _add_singly(self, claim: Claim) -> None:
        episode = self._announcements.episodes.get(claim.owner[0])
        if episode is not None and (episode.robot_id, episode.boot_epoch) != claim.owner[1:]:
            episode = None
        committed = self._committed.get(claim.place, 0)
        for sequence, offset in zip(claim.sequences.tolist(), claim.offsets.tolist(), strict=True):
            if episode is not None and sequence in episode.sequences:
                continue
            rejected = episode is not None and sequence in episode.rejected
            if self._buried.has(claim.place, offset):
                continue
            if self._buried.has_event(claim.owner, sequence, rejected=rejected):
                continue
            if rejected and not self._whole:
                continue  # its dead letter may have been deleted by retention
            if offset >= committed:
                self.open[claim.owner] += 1
                continue
            lost = self._lost.setdefault((claim.place, claim.owner), _Lost())
            lost.sequences.add(sequence)
            lost.offsets.add(offset)


def runs(sequences: Integers) -> Iterator[tuple[int, int]]:
    """Sequences as closed ranges."""
    ordered = np.unique(sequences)
    breaks = np.flatnonzero(np.diff(ordered) > 1)
    for low, high in zip([0, *(breaks + 1)], [*breaks, len(ordered) - 1], strict=True):
        yield int(ordered[low]), int(ordered[high])
