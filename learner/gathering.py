"""Demonstrations with good payloads, gathered until a line can begin with them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from infra.settings import LearnerSettings
from learner.barrier import in_order
from learner.episodes import Episode
from learner.frames import Room
from learner.intake import Intake, Seen
from learner.journal import Beginning
from learner.kept import KeptEpisodes
from learner.line_spec import Kind, features_for, kind_of, sees


class Gathered:
    """Announcements by episode, and their frames on disk; of an episode the revision that came last."""

    def __init__(self, room: Room) -> None:
        self._kept = KeptEpisodes(room)
        self._found: dict[str, tuple[Seen, int]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def take(
        self, intake: Intake, waiting: Iterable[Seen], told: Callable[[int], None] = lambda _looked_at: None
    ) -> int:
        """Take those that wait, in this order; bad ones are set aside. How many were good.

        `told` hears after each how many were looked at.
        """
        taken = 0
        for number, (seen, episode) in enumerate(intake.take_each(waiting), 1):
            if episode is not None:
                self._found[seen.record.episode_id] = seen, self._kept.keep(episode)
                taken += 1
            told(number)
        return taken

    def by_kind(self, cameras: Sequence[str], excluded: Container[str] = ()) -> list[list[Seen]]:
        """What was announced, but for those ids, by the kind that a policy with these cameras sees: most first.

        Demonstrations without any step do not count.
        """
        kinds: dict[Kind, list[Seen]] = {}
        for seen in self.in_order(excluded):
            kinds.setdefault(kind_of(seen.event, cameras), []).append(seen)
        return sorted(kinds.values(), key=with_steps, reverse=True)

    def in_order(self, excluded: Container[str] = ()) -> list[Seen]:
        """What was announced, but for those ids, in an order that owes nothing to its arrival."""
        return in_order(seen for seen, _ in self._found.values() if seen.record.episode_id not in excluded)

    def episodes(self, chosen: Sequence[Seen]) -> Sequence[Episode]:
        """Their episodes, each read from the disk when it is asked for."""
        return self._kept.chosen([self._found[seen.record.episode_id][1] for seen in chosen])


def with_steps(demonstrations: Iterable[Seen]) -> int:
    """How many of them have any step."""
    return sum(seen.record.step_count > 0 for seen in demonstrations)


def beginnings(kinds: Iterable[list[Seen]], settings: LearnerSettings) -> Iterator[tuple[list[Seen], Beginning]]:
    """Of these kinds, most first, those that a line can begin with: enough of it, with the policy's cameras."""
    for ours in kinds:
        if with_steps(ours) < settings.pretrain_episodes:
            return
        features = features_for(ours[0].event.features, settings.cameras)
        if sees(features, settings.cameras):
            yield ours, Beginning(features=features, fps=ours[0].event.fps)
