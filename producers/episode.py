"""Recording one episode: steps, interventions, and its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import uuid_utils
from numpy.typing import ArrayLike

from infra.telemetry import new_traceparent
from producers.errors import EpisodeClosed, SpoolFull, SpoolUnusable
from producers.event_log import EventLog
from producers.frames.directory import Footage
from producers.frames.recorder import FrameRecorder
from producers.tail import OpenEpisode
from producers.vectors import ACTION, STATE, Layout
from schemas.events import (
    Actor,
    EpisodeBoundary,
    EpisodeEnd,
    EpisodeEnded,
    EpisodeSource,
    EpisodeStarted,
    FramesRecorded,
    Intervention,
    InterventionPhase,
)
from schemas.step_writer import StepWriter
from schemas.topics import ROBOT_EPISODES, ROBOT_INTERVENTIONS

_FLOAT32_MAX = 3.4028234663852886e38
# Of a takeover's texts together: its end, which repeats them, must fit once its beginning did.
_MOST_TEXT = 65_536


class Episode:
    """One open episode; made by `RobotClient.episode`, which says when it is begun.

    Leaving its `with` block without `end` makes it TRUNCATED, leaving it by an exception ABORTED. A signal's
    handler may raise anywhere: what was recorded stays, and is counted before the next event.

    Attributes:
        episode_id: UUIDv7.
        start: what its first event says.
        step_count, intervention_count: recorded so far.
        ended: what its last event says; None while it is open.
    """

    def __init__(  # noqa: PLR0917
        self,
        log: EventLog,
        start: EpisodeStarted,
        policy_version: int,
        on_end: Callable[[Episode], None],
        recorder: FrameRecorder,
        frame_room: int = 0,
    ) -> None:
        self.start = start
        self.episode_id = str(uuid_utils.uuid7())
        self.step_count = 0
        self.intervention_count = 0
        self.ended: EpisodeEnded | None = None
        self._log = log
        self._layout = Layout(start.features)
        self._policy_version = policy_version
        self._on_end = on_end
        self._recorder = recorder
        self._told = 0
        self._intervention: InterventionRecording | None = None
        self._entering: InterventionRecording | None = None
        self._ending: tuple[EpisodeEnded, Footage] | None = None
        # Kept, not worked out: each step asks.
        self._usual_actor = Actor.HUMAN if start.source is EpisodeSource.DEMONSTRATION else Actor.POLICY
        self._actor = self._usual_actor
        self._traceparent = new_traceparent()
        cameras = self._layout.cameras
        if cameras:
            recorder.begin(self.episode_id, cameras, frame_room)
        try:
            first = self._write_boundary(start)
        except BaseException:
            recorder.abandon()
            raise
        self._first_sequence = first.sequence
        self._writer = StepWriter(self.episode_id, log.robot_id, log.boot_epoch)

    @property
    def actor(self) -> Actor:
        """Who acts now: HUMAN inside an intervention and throughout a demonstration."""
        return self._actor

    def step(
        self,
        *,
        state: ArrayLike,
        action: ArrayLike,
        reward: float = 0.0,
        policy_version: int | None = None,
        proposed_action: ArrayLike | None = None,
        frames: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Record one control step. Does not wait for the network.

        Args:
            state: float32, shaped as the feature `state` says: what was seen before acting.
            action: float32, shaped as the feature `action` says: what was executed.
            reward: of this step.
            policy_version: that was loaded; by default the active one.
            proposed_action: shaped like `action`: what the policy would have done while a human acted.
            frames: images by camera, as their features say: uint8 (height, width, 3), or uint16 (height, width).
                A camera may be left out of a step. They are copied; what an encoder that does not keep up has no
                room for is dropped, and counted in the episode's end.

        Raises:
            ValueError: a value does not fit its feature, or is not finite; nothing was recorded.
            EpisodeClosed: the episode has ended.
            SpoolFull, SpoolUnusable: nothing was recorded.
        """
        self._require_open()
        images = self._recorder.check(frames) if frames else None
        if proposed_action is not None and self.actor is Actor.POLICY:
            raise ValueError(
                "proposed_action is what the policy proposed while a human acted; the policy acts now"
            )
        if not abs(reward) <= _FLOAT32_MAX:
            raise ValueError(f"reward is not finite, or beyond float32: {reward}")
        version = self._policy_version if policy_version is None else policy_version
        if not 0 <= version < 2**63:
            raise ValueError(f"policy_version must not be negative, nor beyond 64 bits, got {version}")
        pack = self._layout.pack
        vectors = (
            pack(STATE, state),
            pack(ACTION, action),
            None if proposed_action is None else pack(ACTION, proposed_action, "proposed_action"),
        )
        self._log.write_step(
            self._writer, self._traceparent, self.step_count, self._actor, version, vectors, float(reward)
        )
        if images:
            self._recorder.offer(self.step_count, images)
        self.step_count += 1
        self._log.unsure = False

    def intervention(self, *, operator: str, reason: str) -> InterventionRecording:
        """A human takes over for the length of a `with` block; steps inside are the human's.

        It may raise what `InterventionRecording.begin` says when the block is entered.

        Args:
            operator: who takes over.
            reason: why, in a few words.
        """
        return InterventionRecording(self, operator, reason)

    def end(
        self,
        *,
        success: bool | None = None,
        terminated: bool = False,
        truncated: bool = False,
        final_state: ArrayLike | None = None,
        simulated_at: float | None = None,
    ) -> None:
        """Record the end; an intervention that is still open ends first.

        With cameras it waits until their frames are on disk, at most `SOP_ROBOT__FRAMES_PATIENCE`.

        Args:
            success: whether the task was achieved; None when nobody knows.
            terminated: the task reached an end of its own (also when neither is given).
            truncated: time ran out.
            final_state: float32, shaped as the feature `state` says: what is seen after the last step.
            simulated_at: simulated seconds, where time is simulated.

        Raises:
            ValueError: both ends are given, or a value does not fit; the episode stays open.
            EpisodeClosed: it has ended already.
            SpoolFull, SpoolUnusable: nothing was recorded.
        """
        if terminated and truncated:
            raise ValueError("an episode is terminated or truncated, not both")
        if simulated_at is not None and not math.isfinite(simulated_at):
            raise ValueError(f"simulated_at is not finite: {simulated_at}")
        packed = None if final_state is None else self._layout.pack(STATE, final_state, "final_state")
        how = EpisodeEnd.TRUNCATED if truncated else EpisodeEnd.TERMINATED
        self._end(how, success, packed, simulated_at)

    def settle(self) -> None:
        """Go on from what is recorded, where an exception of a signal's broke a call off in the middle.

        Raises:
            SpoolFull, SpoolUnusable: not now; to be asked again before anything is recorded.
        """
        tail = self._log.settle()
        try:
            if tail is not None:
                self._adopt(tail.episode)
        except (SpoolFull, SpoolUnusable):
            self._log.unsure = True
            raise
        self._log.unsure = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._log.unsure:
            self.settle()
        if self.ended is None:
            self._end(EpisodeEnd.TRUNCATED if kind is None else EpisodeEnd.ABORTED, None, None, None)

    def _end(self, how: EpisodeEnd, success: bool | None, final: bytes | None, simulated_at: float | None) -> None:
        self._require_open()
        if self._intervention is not None:
            self._give_back(self._intervention)
        footage = self._recorder.finish()
        for body in footage.events[self._told :]:
            self._write_boundary(body)
            self._told += 1
        ended = EpisodeEnded(
            first_sequence=self._first_sequence,
            end=how,
            success=success,
            final_state=final,
            step_count=self.step_count,
            intervention_count=self.intervention_count,
            simulated_at=simulated_at,
            frame_count=footage.frame_count,
            frames_dropped=footage.dropped,
        )
        self._ending = ended, footage
        self._write_boundary(ended)
        self._conclude(ended, footage)
        self._log.unsure = False

    def _conclude(self, ended: EpisodeEnded, footage: Footage) -> None:
        """The end is recorded; as often as need be."""
        self._recorder.ended(footage)
        self.ended = ended
        self._on_end(self)

    def _adopt(self, found: OpenEpisode | None) -> None:
        """Count what is recorded, no more and no less."""
        if found is None or found.episode_id != self.episode_id:
            if self._ending is not None:
                self._conclude(*self._ending)
            return
        self.step_count, self.intervention_count = found.step_count, found.intervention_count
        if found.intervention is None:
            self._intervention, self._actor = None, self._usual_actor
        elif self._intervention is None and self._entering is not None:
            self._give_back(self._entering)  # whoever took over was told that it failed

    def _write_boundary(self, body: EpisodeStarted | EpisodeEnded | FramesRecorded) -> EpisodeBoundary:
        return self._log.write(
            ROBOT_EPISODES,
            EpisodeBoundary,
            episode_id=self.episode_id,
            traceparent=self._traceparent,
            body=body,
        )

    def _require_open(self) -> None:
        if self._log.unsure:
            self.settle()
        if self.ended is not None:
            raise EpisodeClosed(f"episode {self.episode_id} ended {self.ended.end}; open the next one")

    def _write_edge(self, recording: InterventionRecording, phase: InterventionPhase, last: int | None) -> None:
        self._log.write(
            ROBOT_INTERVENTIONS,
            Intervention,
            episode_id=self.episode_id,
            traceparent=self._traceparent,
            intervention_id=recording.intervention_id,
            phase=phase,
            operator=recording.operator,
            reason=recording.reason,
            first_step=recording.first_step,
            last_step=last,
        )

    def _begin(self, recording: InterventionRecording) -> None:
        self._require_open()
        if self._intervention is not None:
            raise ValueError(f"{self._intervention.operator} has taken over already; interventions do not nest")
        if (length := len(recording.operator) + len(recording.reason)) > _MOST_TEXT:
            raise ValueError(f"operator and reason are a few words, not {length} characters")
        recording.first_step = self.step_count
        self._entering = recording
        self._write_edge(recording, InterventionPhase.BEGIN, None)
        self._intervention, self._actor = recording, Actor.HUMAN
        self.intervention_count += 1
        self._log.unsure = False

    def _finish(self, recording: InterventionRecording) -> None:
        if self._log.unsure:
            self.settle()
        if self._intervention is recording:
            self._give_back(recording)

    def _give_back(self, recording: InterventionRecording) -> None:
        self._write_edge(recording, InterventionPhase.END, self.step_count - 1)
        self._intervention, self._actor = None, self._usual_actor
        self._log.unsure = False


class InterventionRecording:
    """A human in control, from entering the `with` block to leaving it, or from `begin` to `close`.

    The episode's end ends it too. `begin` and `close` are for control loops that learn in each step who acts.

    Attributes:
        intervention_id: UUIDv7, the same at both edges.
        first_step: index of the first step under human control, once entered.
    """

    def __init__(self, episode: Episode, operator: str, reason: str) -> None:
        self.operator = operator
        self.reason = reason
        self.intervention_id = str(uuid_utils.uuid7())
        self.first_step = 0
        self._episode = episode

    def begin(self) -> Self:
        """Take over; once only.

        Raises:
            ValueError: a human is in control already, or operator and reason are longer than 65,536 characters.
            EpisodeClosed: the episode has ended.
            SpoolFull, SpoolUnusable: nothing was recorded, and the policy stays in control.
        """
        self._episode._begin(self)
        return self

    def __enter__(self) -> Self:
        return self.begin()

    def close(self) -> None:
        """Give control back to the policy; nothing happens if that was done."""
        self._episode._finish(self)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
