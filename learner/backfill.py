"""`sop backfill`: a new policy line from episodes of the past, with another algorithm or another threshold.

`learner.chosen` says which episodes. The line is its own; the live one, its topics' readers and its checkpoints
are not touched. Announcements are in memory, frames on disk (`learner.replay`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import overload

from infra.clock import SystemClock
from infra.health import Health
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from learner.checkpoint import CheckpointStore, choose
from learner.choice import Choice
from learner.episodes import Episode
from learner.errors import LineExists, NothingChosen, OtherChoice
from learner.frames import Room
from learner.gathering import Gathered
from learner.halfway import Halfway
from learner.intake import Seen
from learner.line import Line
from learner.patience import Patience
from learner.rerun import readings, train_base
from learner.stream import EventStream, Received
from learner.unfinished import Begun, Unfinished
from learner.unheeded import say_unknown_tasks
from schemas.events import EpisodeMaterialized, PolicyVersion
from schemas.topics import POLICY_VERSIONS


class Listed:
    """A stream that holds what was chosen, once. Implements `learner.stream.Announcements`."""

    def __init__(self, chosen: Iterable[Received[EpisodeMaterialized]], ends: Mapping[int, int]) -> None:
        self._chosen, self._ends = list(chosen), ends

    @property
    def positions(self) -> dict[int, int]:
        """Behind all that was looked at: who trains the line on is not given what was not chosen."""
        return dict(self._ends)

    def seek(self, positions: Mapping[int, int] | None = None) -> None:
        """Nothing to seek."""

    def poll(self, timeout: float) -> list[Received[EpisodeMaterialized]]:  # noqa: ARG002 - never waits
        """All of it at the first call, nothing afterwards."""
        found, self._chosen = self._chosen, []
        return found


Told = Callable[[str, int, int | None], None]
"""Is told what is being done, how much of it is done, and how much there is; None when nobody knows."""


class _Watched(Gathered):
    """Gathered episodes, with a word whenever one is read back."""

    def __init__(self, room: Room, readings: int, told: Callable[[int, int], None]) -> None:
        """`told` hears how often one was read, and how often that will be: each `readings` times."""
        super().__init__(room)
        self._readings, self._told = readings, told

    def episodes(self, chosen: Sequence[Seen]) -> Sequence[Episode]:
        """Their episodes, each read from the disk when it is asked for."""
        return _Counted(super().episodes(chosen), self._readings, self._told)


class _Counted(Sequence[Episode]):
    def __init__(self, episodes: Sequence[Episode], readings: int, told: Callable[[int, int], None]) -> None:
        self._episodes, self._told = episodes, told
        self._read, self._all = 0, readings * len(episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    @overload
    def __getitem__(self, place: int) -> Episode: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Episode]: ...

    def __getitem__(self, place: int | slice) -> Episode | Sequence[Episode]:
        found = self._episodes[place]
        self._read += 1
        self._told(self._read, self._all)
        return found


def backfill(
    settings: Settings,
    chosen: list[Received[EpisodeMaterialized]],
    stop: threading.Event,
    told: Told = lambda _what, _done, _all: None,
    *,
    call: Begun | None = None,
    save_every: float = 30.0,
) -> PolicyVersion:
    """Train a new line's first version on these episodes; `settings.learner` says how, and its name.

    If it is interrupted, the same call goes on with the same episodes, which the journal has, from where it was at
    most `save_every` seconds earlier. A call with other episodes does not. With other settings the training begins
    anew; once it has come to its end, they are refused, and the same call announces what was trained.

    Args:
        settings: `learner.pretrain_steps` updates are taken.
        chosen: what `learner.recovered.choose_episodes` found.
        stop: ends it.
        told: hears how far it is: "fetching" and "admitting" episodes (each is read several times),
            "fitting" what the algorithm must know beforehand, "training" updates.
        call: how these episodes came to be chosen; by default nothing but they themselves.
        save_every: seconds between two snapshots.

    Raises:
        LineExists: the line has versions: a backfill never adds to one.
        OtherChoice: it was begun with other episodes, by another call, or trained to its end with other settings.
        NothingChosen: there is nothing in these episodes to learn from.
        Stopped: a stop was asked for.
    """
    learner, patience = settings.learner, Patience(stop)
    unfinished, halfway = (
        Unfinished(settings, patience),
        Halfway(ObjectStore(settings.s3), learner.policy, patience),
    )
    try:
        require_new(settings, patience)
    except LineExists:  # of use to nobody, and left if a call was killed once its version was announced
        halfway.remove()
        unfinished.remove()
        raise
    if not chosen:
        raise NothingChosen("no episode was chosen")
    begun = unfinished.begin(call or Begun.of(None, Choice(), chosen))
    _require_same_settings(settings, patience)
    told("beginning", 0, None)
    with Line(settings, stop, SystemClock(), Health(), announcements=Listed(chosen, begun.ends)) as line:
        line.take_over()
        line.catch_up()
        if line.newest is not None:  # a call before had trained it to its end, and this one has announced it
            halfway.remove()
            unfinished.remove()
            return line.newest
        if not line.started:
            line.intake.poll(0.0)

            def tell(what: str, done: int, every: int) -> None:
                line.pause(0.0)  # a stop is heard between two episodes, and between two updates
                told(what, done, every)

            gathered = _Watched(line.room, readings(learner), partial(tell, "admitting"))
            waiting = list(line.intake.waiting.values())
            gathered.take(line.intake, waiting, lambda number: tell("fetching", number, len(waiting)))
            if not line.start(gathered, partial(tell, "fitting")):
                unfinished.remove()
                raise NothingChosen(f"{len(gathered)} episodes, and none that {learner.algorithm} learns from")

        say_unknown_tasks(learner, line.core.spec.tasks)
        line.go_on_halfway()
        saved_at = line.clock.monotonic()

        def update() -> None:
            nonlocal saved_at
            line.update(online=False)
            told("training", line.core.learner_step, learner.pretrain_steps)
            if line.clock.monotonic() - saved_at >= save_every:
                line.report(settle=True)  # nobody draws again what lies before a snapshot
                line.halfway.save(line.core)
                saved_at = line.clock.monotonic()

        train_base(line.core, learner, update)
        line.publish()
        halfway.remove()
        unfinished.remove()
        if line.newest is None:
            raise RuntimeError("a line that has published has a newest version")
        return line.newest


def _require_same_settings(settings: Settings, patience: Patience) -> None:
    """Refuse other settings than a version was trained with that only has to be announced yet."""
    learner = settings.learner.model_copy(update={"tensorboard": None})
    checkpoints = CheckpointStore(ObjectStore(settings.s3), learner.policy, patience, keep=1)
    trained = choose(checkpoints.newest_first(), {})
    if trained is None or trained.settings == learner:
        return
    theirs, ours = trained.settings.model_dump(), learner.model_dump()
    names = ", ".join(name for name, value in ours.items() if value != theirs[name])
    raise OtherChoice(
        f"policy {learner.policy} was trained to its end with other settings ({names}), and only has to be "
        "announced: give the command that began it to have that done, or another name (--policy) to use these"
    )


def same_call(settings: Settings, words: str, patience: Patience) -> Begun | None:
    """The first call of these words, if it was begun and not finished.

    Raises:
        LineExists: nothing is unfinished, and the line has versions: nobody need choose episodes for it.
    """
    begun = Unfinished(settings, patience).read()
    if begun is None:
        require_new(settings, patience)
    return begun if begun is not None and begun.words == words else None


def require_new(settings: Settings, patience: Patience) -> None:
    """Refuse a line that has versions.

    Raises:
        LineExists: it has.
    """
    registry = Registry(settings.registry)
    stream = EventStream(settings.kafka, registry, POLICY_VERSIONS, PolicyVersion, patience)
    try:
        policies = {item.event.policy for item in stream.read_to_end()}
    finally:
        stream.close()
    if settings.learner.policy in policies:
        raise LineExists(f"policy {settings.learner.policy} has versions already; choose another name (--policy)")
