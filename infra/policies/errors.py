"""What can be wrong with keys, signatures and rollouts.

InfraError
├── KeyUnusable         a key cannot be read, or must not be used as it is
├── SignatureRefused    an announcement is not signed by anybody that is believed
└── RolloutRefused      a change of a rollout makes no sense; nothing was written
    └── RolloutNotBelieved  the newest state of the line may be one that is not believed here
"""

from infra.errors import InfraError


class KeyUnusable(InfraError):
    """A key cannot be read, or must not be used as it is. The text says what to do."""


class SignatureRefused(InfraError):
    """An announcement is not signed by anybody that is believed."""


class RolloutRefused(InfraError):
    """A change of a rollout makes no sense; nothing was written."""


class RolloutNotBelieved(RolloutRefused):
    """The newest state of the line may be one that is not believed here; nothing was written.

    The text says whose it is and what to do.
    """
