"""Assembly: a pure fold from events to sealed episodes, for one partition number.

No I/O and no clock: batches and watermarks in, sealed episodes and dead letters out. Nothing is assumed about the
order between the robot topics, and any event may come again at any later time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers import step_checks
from consumers.dead_letters import DeadLetter, Reason
from consumers.decode import Decoded, StepGroup
from consumers.emitted import EmittedLog
from consumers.episode import OpenEpisode
from consumers.intake import StepRecords
from consumers.ranges import RangeSet
from consumers.records import Origin
from consumers.steps import Steps
from schemas.events import ClosedBy, OffsetRange, RobotEvent
from schemas.topics import ROBOT_STEPS


@dataclass(frozen=True, slots=True)
class Sealed:
    """An episode to be stored: complete, or as complete as it will get."""

    episode: OpenEpisode
    closed_by: ClosedBy


@dataclass
class Outcome:
    """What a batch or the passing of time brought about."""

    sealed: list[Sealed] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    duplicates: int = 0


class Assembly:
    """Open episodes of one partition number.

    Args:
        emitted: what is already on training-episodes and dead-letters.
        timeout: seconds of silence, in Kafka's append time, after which an episode is sealed as it is.
    """

    def __init__(self, emitted: EmittedLog, timeout: float) -> None:
        self.emitted = emitted
        self._timeout_ms = int(timeout * 1000)
        self.open: dict[str, OpenEpisode] = {}
        self._boots: defaultdict[tuple[str, int], dict[str, OpenEpisode]] = defaultdict(dict)
        """Open episodes of each robot and boot epoch."""

    def add(self, batch: Decoded) -> Outcome:
        """Fold a decoded batch in."""
        out = Outcome()
        touched: set[str] = set()
        for letter, event in batch.rejected:
            self._reject(out, letter, event)
            touched.add(event.episode_id if event else "")
        for event, place in batch.events:
            self._add_event(out, event, place, touched)
        for group in batch.groups:
            self._add_steps(out, group)
            touched.add(group.episode_id)
        for episode_id in sorted(touched):
            episode = self.open.get(episode_id)
            if episode is None:
                continue
            if not episode.offsets:  # nothing of what came could stay
                self._let_go(episode)
            elif (closed_by := episode.closed_by()) is not None:
                self._seal(out, episode, closed_by)
        return out

    def advance(self, watermark_ms: int) -> Outcome:
        """Let time pass: everything appended before `watermark_ms` (since the epoch) has been read."""
        out = Outcome()
        for episode in list(self.open.values()):
            if watermark_ms - episode.appended_ms > self._timeout_ms:
                self._seal(out, episode, ClosedBy.TIMEOUT)
        return out

    def first_offset(self, topic: str, position: int) -> int:
        """Offset from which a successor must read `topic` to rebuild the open episodes; at most `position`."""
        return min([position, *(e.offsets[topic][0] for e in self.open.values() if topic in e.offsets)])

    def undecided(self) -> list[OpenEpisode]:
        """Open episodes that hold dead letters back: what was announced of them before must be looked up."""
        return [episode for episode in self.open.values() if episode.held]

    def decide(self, episode: OpenEpisode, announced: RangeSet) -> Outcome:
        """Let go of dead letters that an open episode holds; `announced` are its sequences of before."""
        out = Outcome()
        episode.before = announced
        letters = episode.letters(announced)
        out.duplicates = len(episode.held) - len(letters)
        episode.let_go()
        for letter in letters:
            self._bury(out, letter)
        return out

    def _episode_for(self, event: RobotEvent | StepGroup) -> OpenEpisode:
        episode = self.open.get(event.episode_id)
        if episode is None:
            episode = OpenEpisode(event.episode_id, event.robot_id, event.boot_epoch)
            self.open[event.episode_id] = episode
            self._boots[event.robot_id, event.boot_epoch][event.episode_id] = episode
        return episode

    def _let_go(self, episode: OpenEpisode) -> None:
        del self.open[episode.episode_id]
        boot = episode.robot_id, episode.boot_epoch
        del self._boots[boot][episode.episode_id]
        if not self._boots[boot]:
            del self._boots[boot]

    def _announced(self, event: RobotEvent) -> bool:
        emitted = self.emitted.episode(event.episode_id)
        return emitted is not None and event.sequence in emitted.sequences

    def _is_foreign(self, event: RobotEvent | StepGroup) -> bool:
        """Whether the episode is known to be another robot's, or another boot's."""
        owner = self.open.get(event.episode_id) or self.emitted.episode(event.episode_id)
        return owner is not None and (owner.robot_id, owner.boot_epoch) != (event.robot_id, event.boot_epoch)

    def _bury(self, out: Outcome, letter: DeadLetter) -> None:
        """Make a record a dead letter, once: after a restart it is read, and found wanting, again."""
        place = letter.origin
        if not self.emitted.is_dead(place.topic, place.offset):
            self.emitted.remember_dead(place.topic, place.offset, None)
            out.dead.append(letter)

    def _bury_of(self, out: Outcome, episode: OpenEpisode, sequence: int, letter: DeadLetter) -> None:
        """Bury a record of an episode: once, although a robot may send it again long after that is forgotten here.

        Of an episode of which no revision is remembered it may have been buried before; the object store tells.
        """
        known = self.emitted.episode(episode.episode_id)
        if episode.before is None and (known is None or known.revision == 0):
            episode.hold(sequence, letter)
        elif episode.before is not None and sequence in episode.before:
            out.duplicates += 1
        else:
            self._bury(out, letter)

    def _reject(self, out: Outcome, letter: DeadLetter, event: RobotEvent | None) -> None:
        """A record cannot be used. If it can be told whose it was, its episode need not wait for it."""
        if event is not None and not self._is_foreign(event):
            episode = self._episode_for(event)
            if self._announced(event) or episode.rejected_as(event.sequence, letter.origin.value):
                out.duplicates += 1
                return
            if event.sequence not in episode.seen:
                episode.reject(event.sequence, letter.origin)
            episode.touch(*_where(letter.origin))
            self._bury_of(out, episode, event.sequence, letter)
        else:
            self._bury(out, letter)

    def _add_event(self, out: Outcome, event: RobotEvent, place: Origin, touched: set[str]) -> None:
        if self._is_foreign(event):
            self._bury(out, _foreign(place, event))
            return
        if self.emitted.is_given_up(place.topic, place.offset):
            self._recall(event, [event.sequence], place, [place.offset])
        if self._announced(event):
            out.duplicates += 1
            return
        episode = self._episode_for(event)
        touched.add(event.episode_id)
        if event.sequence in episode.rejected:
            self._repeat(out, place, same=episode.rejected_as(event.sequence, place.value))
        elif event.sequence in episode.seen:
            self._repeat(out, place, same=episode.holds(event))
        elif (problem := episode.unfit(event)) is not None:
            self._reject(out, DeadLetter(place, *problem), event)
        else:
            episode.touch(*_where(place))
            episode.seen.add(event.sequence)
            episode.others[event.sequence] = place
            episode.take(event)
            if episode.started is event:
                self._link_boot(episode, touched)
                self._check_early_steps(out, episode)

    def _repeat(self, out: Outcome, place: Origin, *, same: bool) -> None:
        """A sequence came again: a duplicate if it says the same, else a contradiction that somebody must see."""
        if same:
            out.duplicates += 1
        else:
            text = "same robot, boot epoch and sequence as an earlier record, other content"
            self._bury(out, DeadLetter(place, Reason.CONFLICT, text))

    def _link_boot(self, begun: OpenEpisode, touched: set[str]) -> None:
        """Tell the episodes of one boot which of them follows which."""
        for other in self._boots[begun.robot_id, begun.boot_epoch].values():
            if other is begun or other.started is None or begun.started is None:
                continue
            earlier, later = sorted((other, begun), key=lambda e: e.started.sequence if e.started else -1)
            if later.started is not None:
                earlier.followed_by(later.started.sequence)
            touched.add(earlier.episode_id)

    def _add_steps(self, out: Outcome, group: StepGroup) -> None:
        """Fold steps of one episode in, in the order of their offsets."""
        if self._is_foreign(group):
            for at in range(len(group.steps)):
                self._bury(out, _foreign(group.origin(at), group.event(at)))
            return
        self._recall_steps(group)
        emitted = self.emitted.episode(group.episode_id)
        if emitted is not None:
            new = step_checks.without_announced(group.steps, emitted.sequences)
            out.duplicates += len(group.steps) - len(new)
            if not len(new):
                return
            group = group if len(new) == len(group.steps) else group.narrowed(new)
        episode = self._episode_for(group)
        group, repeats = self._without_repeats(out, group, episode)
        out.duplicates += repeats
        steps = group.steps
        if not len(steps):
            return
        records = group.records
        for row in (int(steps.row[0]), int(steps.row[-1])):
            place = int(records.partitions[row]), int(records.offsets[row]), int(records.appended_ms[row])
            episode.touch(ROBOT_STEPS, *place)
        for low, high in step_checks.runs(steps.sequence, ordered=group.ordered):
            episode.seen.add(low, high)
        if episode.started is None:
            episode.early.append(steps, group.records)
        else:
            self._keep_fitting(out, episode, steps, group.records)

    def _recall_steps(self, group: StepGroup) -> None:
        if not self.emitted.gave_up:
            return
        offsets = group.records.offsets[group.steps.row]
        hits = self.emitted.given_up(ROBOT_STEPS, offsets)
        if hits.any():
            first = group.origin(int(np.flatnonzero(hits)[0]))
            self._recall(group, group.steps.sequence[hits].tolist(), first, offsets[hits].tolist())

    def _recall(
        self, event: RobotEvent | StepGroup, sequences: Sequence[int], place: Origin, offsets: Sequence[int]
    ) -> None:
        """Records are read again after a restart that were given up: that stands, even if their start comes now.

        `place` is that of one of them.
        """
        owner = event.episode_id, event.robot_id, event.boot_epoch
        span = OffsetRange(topic=place.topic, partition=place.partition, first=min(offsets), last=max(offsets))
        self.emitted.bury(owner, RangeSet((sequence, sequence) for sequence in sequences), (span,))

    def _without_repeats(self, out: Outcome, group: StepGroup, episode: OpenEpisode) -> tuple[StepGroup, int]:
        new, repeats = step_checks.without_repeats(group, episode)
        for at in repeats.conflicts:
            self._repeat(out, group.origin(at), same=False)
        return new, repeats.duplicates

    def _check_early_steps(self, out: Outcome, episode: OpenEpisode) -> None:
        """Measure the steps that came before their layout was known."""
        for steps, records in episode.early.parts():
            if records is not None:
                self._keep_fitting(out, episode, steps, records)
        episode.early.clear()

    def _keep_fitting(self, out: Outcome, episode: OpenEpisode, steps: Steps, records: StepRecords) -> None:
        if step_checks.all_fit(steps, episode):
            episode.steps.append(steps)
            return
        keep = np.ones(len(steps), np.bool_)
        for at, text in step_checks.misfits(steps, episode):
            keep[at] = False
            sequence = int(steps.sequence[at])
            place = records.origin(int(steps.row[at]))
            episode.seen.discard(sequence)
            episode.reject(sequence, place)
            self._bury_of(out, episode, sequence, DeadLetter(place, Reason.WRONG_LENGTH, text))
        kept = steps.where(keep)
        if len(kept):
            episode.steps.append(kept)

    def _seal(self, out: Outcome, episode: OpenEpisode, closed_by: ClosedBy) -> None:
        self._let_go(episode)
        self.emitted.expect(episode)
        out.sealed.append(Sealed(episode, closed_by))


def never_started(episode: OpenEpisode) -> Iterator[tuple[int, DeadLetter]]:
    """Sequence and dead letter of each event of an episode whose start never came and of which none is stored."""
    text = f"the start of episode {episode.episode_id} never came"
    for sequence, place in episode.others.items():
        yield sequence, DeadLetter(place, Reason.NEVER_STARTED, text)
    for steps, records in episode.early.parts():
        if records is not None:
            for at, sequence in enumerate(steps.sequence.tolist()):
                yield sequence, DeadLetter(records.origin(at), Reason.NEVER_STARTED, text)


def _where(place: Origin) -> tuple[str, int, int, int]:
    return place.topic, place.partition, place.offset, place.appended_ms


def _foreign(place: Origin, event: RobotEvent) -> DeadLetter:
    text = f"episode {event.episode_id} is another robot's or another boot's, not {event.robot_id}'s"
    return DeadLetter(place, Reason.FOREIGN_EPISODE, text)
