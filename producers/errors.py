"""What a robot's client can refuse, and what the caller should do.

RobotClientError
├── DataDirBusy       another process records with this data directory: stop it, or take another directory
├── ClientClosed      the client was closed: make a new one
├── EpisodeOpen       an episode is open: end it first
├── EpisodeClosed     the episode is over: open the next one
├── SpoolFull         no room for more events: wait until the network has taken some, nothing was recorded
├── SpoolUnusable     the spool's files cannot be opened or written: somebody else holds them, or the disk is sick
├── CamerasUnavailable  frames cannot be encoded here: record without cameras, or mend what the text says
├── Undelivered       events that were recorded are not in Kafka yet; the spool keeps them for the next start
└── PolicyRefused     an artifact is not what was announced: keep the policy that is active

A vector that does not fit its feature is a ValueError, and nothing is recorded.
"""


class RobotClientError(Exception):
    """Base of everything that the robot's client refuses."""


class DataDirBusy(RobotClientError):
    """Another process holds this data directory; two would share boot epochs."""


class ClientClosed(RobotClientError):
    """The client was closed, or is its parent process's; nothing was recorded."""


class EpisodeOpen(RobotClientError):
    """Not possible while an episode is open."""


class EpisodeClosed(RobotClientError):
    """The episode has ended."""


class SpoolFull(RobotClientError):
    """There is no room for the event; it was not recorded and used no sequence number."""


class SpoolUnusable(RobotClientError):
    """The spool's files cannot be opened or written; what could not be written was not recorded."""


class CamerasUnavailable(RobotClientError):
    """The encoder of frames does not start, or its folder cannot be made; no episode began."""


class Undelivered(RobotClientError):
    """Recorded events were not acknowledged by Kafka yet; they are kept."""


class PolicyRefused(RobotClientError):
    """An artifact differs from its announcement."""
