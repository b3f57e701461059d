"""Labels: what people say of an episode after the fact, and what that makes of it.

A label is a late event of its episode, with an id in place of a sequence. A revision holds the union of all that
came, so their order does not matter, nor how often they come: of two that speak of the same thing the later one
counts, by their own time. What the robot said stays in the payload.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from consumers.assembly import Sealed
from consumers.dead_letters import DeadLetter, Reason
from consumers.emitted import EmittedLog, is_settled
from consumers.episode import OpenEpisode
from consumers.payload import PayloadUnreadable, folder, read_payload
from consumers.records import Origin
from consumers.tombstone import is_tombstone
from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from schemas.events import ClosedBy, EpisodeLabelled
from schemas.topics import EPISODE_LABELS

LOOKUPS = 50
"""Episodes that are looked for in the object store before the group is served again."""

Owner = tuple[str, int]
"""Robot and boot epoch."""


@dataclass
class Decided:
    """What became of labels: late events of stored episodes, or dead letters."""

    sealed: list[Sealed] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


class LabelDesk:
    """Labels of one partition number that wait for their episode.

    Those of an episode that is under way wait until it is stored. Those of one that nobody knows wait as long as a
    silent episode does, and are dead letters then.

    Args:
        timeout: seconds, in Kafka's append time.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout_ms = int(timeout * 1000)
        self._watermark_ms = 0
        self._waiting: dict[str, list[tuple[EpisodeLabelled, Origin]]] = {}
        self._asked: set[str] = set()

    def add(self, labels: Iterable[tuple[EpisodeLabelled, Origin]]) -> None:
        """Take labels in, in Kafka's order."""
        for event, place in labels:
            self._waiting.setdefault(event.episode_id, []).append((event, place))

    def advance(self, watermark_ms: int) -> None:
        """Everything that robots appended before `watermark_ms` (since the epoch) has been read."""
        self._watermark_ms = max(self._watermark_ms, watermark_ms)

    def first_offset(self, position: int) -> int:
        """Offset from which a successor must read to have what waits here; at most `position`."""
        return min([position, *(place.offset for _, place in self._all())])

    def oldest_ms(self) -> int | None:
        """Append time of the oldest label that waits."""
        return min((place.appended_ms for _, place in self._all()), default=None)

    def decide(
        self, under_way: Collection[str], emitted: EmittedLog, look_up: Callable[[str], Owner | None]
    ) -> Decided:
        """Let go of the labels whose episode is stored, or known to nobody for too long.

        Args:
            under_way: ids of episodes that are open, or sealed and not stored.
            emitted: what is announced.
            look_up: finds the owner of an announced episode that is no longer in `emitted`; may raise, and then
                labels that were not let go of wait for the next call.
        """
        out, asked = Decided(), 0
        for episode_id, labels in list(self._waiting.items()):
            if episode_id in under_way:
                continue
            known = emitted.episode(episode_id)
            expired = self._watermark_ms - labels[-1][1].appended_ms > self._timeout_ms
            if known is not None and known.revision > 0:
                owner: Owner | None = (known.robot_id, known.boot_epoch)
            elif (episode_id not in self._asked or expired) and asked < LOOKUPS:
                owner = look_up(episode_id)
                self._asked.add(episode_id)
                asked += 1
                if owner is None and not expired:
                    continue
            else:
                continue
            del self._waiting[episode_id]
            self._asked.discard(episode_id)
            _settle(out, episode_id, owner, labels)
        return out

    def _all(self) -> Iterable[tuple[EpisodeLabelled, Origin]]:
        return (label for labels in self._waiting.values() for label in labels)


def announced_owner(episode_id: str, committed: Mapping[str, int], objects: ObjectStore) -> Owner | None:
    """Whose an episode is of which a revision was announced, as the object store tells; None if there is none.

    As long as the events of an object were not committed it may be an orphan, and its episode is under way again.
    Offsets of another robot's partition mean nothing here, and need not: the owner is all that is asked.

    Raises:
        ObjectStoreUnavailable: call again.
    """
    for key in objects.list(folder(episode_id)):
        if is_tombstone(key):
            continue
        try:
            facts = read_payload(objects.get(key)).facts
        except (ObjectMissing, PayloadUnreadable):
            continue
        if is_settled(facts.source_offsets, committed):
            return facts.robot_id, facts.boot_epoch
    return None


def _settle(
    out: Decided, episode_id: str, owner: Owner | None, labels: Sequence[tuple[EpisodeLabelled, Origin]]
) -> None:
    if owner is None:
        text = f"nobody knows episode {episode_id}: it was not recorded, or by another robot than its label says"
        out.dead += [DeadLetter(place, Reason.UNKNOWN_EPISODE, text) for _, place in labels]
        return
    good = []
    for event, place in labels:
        if event.robot_id == owner[0]:
            good.append((event.label, place))
        else:
            text = f"episode {episode_id} is not {event.robot_id}'s"
            out.dead.append(DeadLetter(place, Reason.FOREIGN_EPISODE, text))
    if good:
        late = OpenEpisode(episode_id, *owner)
        late.late_labels = good
        # Kafka's time of a label says nothing of how long the episode was under way: `touch` would count it.
        late.partition = good[0][1].partition
        late.offsets[EPISODE_LABELS] = (good[0][1].offset, good[-1][1].offset)
        out.sealed.append(Sealed(late, ClosedBy.TIMEOUT))
