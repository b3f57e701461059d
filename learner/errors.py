"""What can go wrong in learning, besides the servers (`infra.errors`).

LearnerError
├── UnknownTask         a policy was asked about a task that it never saw
├── InvalidArtifact     the bytes are no policy, or no checkpoint, of ours
├── BadPayload          an episode's payload is missing, altered, or not what its announcement says
├── UnfitEpisode        an episode of another robot kind, rate or task than the policy's
├── LineExists          a backfill was to add to a line that has versions
├── OtherChoice         an unfinished backfill was begun with other episodes, or ended with other settings
├── NothingChosen       a backfill has no episode to learn from
├── PayloadGone         what a version was trained on is no longer there
├── JournalMissing      how a version came about was not written down
├── OtherAlgorithm      the settings name another algorithm than the line was trained with
├── WeightsNotFinite    what was trained would send no numbers to motors
├── RanksDisagree       the processes that train together do not have the same policy
├── RankGone            another of the processes that train together ended without a word
├── RolledBack          an operator or the guard went back to an earlier version: start again from there
├── EpisodesLost        many admitted episodes can no longer be read, all at once
├── VersionsLost        there is a checkpoint of a version that nobody announced
└── CheckpointMissing   versions were published, and nothing to continue from is left
"""

from infra.errors import InfraError


class LearnerError(Exception):
    """Base of everything that can go wrong in learning, besides the servers."""


class UnknownTask(LearnerError):
    """The policy never saw this task; the text names those that it knows."""


class InvalidArtifact(LearnerError):
    """The bytes are no safetensors file of ours, or one of another format or architecture."""


class BadPayload(LearnerError):
    """An episode's payload is missing, altered, or not what its announcement says. It is set aside."""


class UnfitEpisode(LearnerError):
    """An episode whose features, control rate or task the policy does not know. It is set aside."""


class RolledBack(LearnerError):
    """The line was rolled back: what is in training is given up, and the learner starts again."""


class WeightsNotFinite(LearnerError, InfraError):
    """A weight of the policy is NaN or infinite. Fatal: it is not published, an operator rolls back."""


class OtherAlgorithm(LearnerError, InfraError):
    """The line was trained by another algorithm than the settings name. Wrong use: the text says what to do."""


class RanksDisagree(LearnerError, InfraError):
    """The ranks' policies differ: their machines do not compute alike. Nothing is published; start one alone."""


class RankGone(LearnerError, InfraError):
    """Another rank is gone. Fatal: torchrun, or whoever started the ranks, starts all again, and they resume."""


class CheckpointMissing(LearnerError, InfraError):
    """Versions of the line were published, and no checkpoint of them is left. Fatal: an operator must decide."""


class VersionsLost(LearnerError, InfraError):
    """The bucket holds a later version's checkpoint or journal than policy-versions announces: it lost records."""


class EpisodesLost(LearnerError, InfraError):
    """Too many admitted episodes cannot be read at a start. Fatal, for to go on is to forget them for good."""


class JournalMissing(LearnerError, InfraError):
    """How a version came about was not written down, or is gone: it cannot be trained again."""


class PayloadGone(LearnerError, InfraError):
    """What a version was trained on is no longer there as it was: it cannot be trained again."""


class LineExists(LearnerError, InfraError):
    """A backfill was to add to a line that has versions. Wrong use: it makes a new one."""


class OtherChoice(LearnerError, InfraError):
    """An unfinished backfill has other episodes, or other settings. Wrong use: the text says how to go on."""


class NothingChosen(LearnerError, InfraError):
    """There is no episode to learn from among those that were chosen."""
