"""Events that are kept twice: in their newest revision and on dead-letters. Pure: dead letters and claims in.

A sequence may be listed and have a dead letter without any harm: a robot's name is used twice, and the other
record of that sequence cannot be used. So what tells is the bytes. A dead letter for want of a start needs no look
at them: once its sequence was given up, none with that sequence is ever listed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from consumers.audit.announced import Announcements, spoken
from consumers.audit.buried import Buried, Owner, Place
from consumers.audit.claims import Claims
from consumers.audit.findings import Finding, Kind, Where
from consumers.dead_letters import Reason
from consumers.ranges import RangeSet


class Doubles:
    """Sequences that are listed in a newest revision, and whose records are dead letters.

    Args:
        announcements: the training stream.
        buried: dead-letters.
        whole: partitions of robot topics that are read from their first offset. Of others the record that is
            listed may have been deleted, and nothing is concluded.
    """

    def __init__(self, announcements: Announcements, buried: Buried, whole: frozenset[Place]) -> None:
        self._announcements, self._whole = announcements, whole
        self._certain: dict[Owner, RangeSet] = {}
        self._contested: dict[Owner, dict[int, set[int]]] = {}
        """Hashes of the dead letters' bytes by sequence."""
        self._elsewhere: dict[Owner, set[int]] = defaultdict(set)
        """Sequences of which there is a record that is no dead letter."""
        self._met: dict[Owner, set[int]] = defaultdict(set)
        """Sequences of which every record was met that there ever was."""
        for owner, letters in buried.letters.items():
            episode = announcements.episodes.get(owner[0])
            if episode is None or (episode.robot_id, episode.boot_epoch) != owner[1:]:
                continue
            listed = {sequence: kept for sequence, kept in letters.items() if sequence in episode.sequences}
            for sequence, kept in listed.items():
                if Reason.NEVER_STARTED.value in kept.values():
                    self._certain.setdefault(owner, RangeSet()).add(sequence)
                else:
                    self._contested.setdefault(owner, {})[sequence] = set(kept)

    def add(self, batch: Claims, records: Sequence[tuple[int, bytes | None]]) -> None:
        """Take in what records of one robot topic's partition say, and the records: offset and value."""
        values: Mapping[int, bytes | None] = {}
        for claim in batch.claims:
            contested = self._contested.get(claim.owner)
            if contested is None:
                continue
            values = values or dict(records)
            for sequence, offset in zip(claim.sequences.tolist(), claim.offsets.tolist(), strict=True):
                if sequence not in contested:
                    continue
                if hash(values[offset]) not in contested[sequence]:
                    self._elsewhere[claim.owner].add(sequence)
                elif claim.place in self._whole:
                    self._met[claim.owner].add(sequence)

    def findings(self) -> Iterator[Finding]:
        """Events that are kept twice, by episode."""
        for owner in sorted({*self._certain, *self._met}):
            doubled = RangeSet(self._certain.get(owner, RangeSet()))
            for sequence in self._met[owner] - self._elsewhere[owner]:
                doubled.add(sequence)
            if not doubled:
                continue
            newest = self._announcements.episodes[owner[0]].newest
            yield Finding(
                Kind.DOUBLED,
                Where.ROBOT_TOPICS,
                f"episode {owner[0]} robot {owner[1]} boot {owner[2]} sequences {spoken(doubled)}",
                f"in revision {newest.number}, and on dead-letters as well. A log cannot be mended; readers of "
                f"the training stream have these events once",
                episode_id=owner[0],
                revision=newest.number,
            )
