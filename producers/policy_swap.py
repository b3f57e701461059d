"""Between two episodes: run what the robot should run, or stay with what runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from producers.policy_inbox import PolicyInbox
from producers.robot import RobotClient

T = TypeVar("T")


def swap(client: RobotClient, inbox: PolicyInbox, load: Callable[[bytes], T]) -> T | None:
    """Load what the inbox holds, if it is something else than what runs, and announce that it runs.

    A policy that cannot be loaded is told on robot-status and not offered again; what runs goes on.

    Args:
        client: between episodes.
        inbox: of the same client.
        load: makes a policy of an artifact; whatever it raises is the policy's fault.

    Returns:
        The loaded policy; None where there is nothing new, and what runs goes on.

    Raises:
        EpisodeOpen: policies change between episodes only; nothing was loaded.
        RobotClientError: the activation could not be recorded; the policy before stays active.
    """
    client.require_no_episode()
    while (file := inbox.current()) is not None:
        active = client.active_policy
        if active is not None and active.announcement == file.announcement:
            return None
        try:
            policy = load(file.read())
        except Exception as error:  # noqa: BLE001 - a loader may raise anything; the robot goes on
            inbox.reject(file, f"{type(error).__name__}: {error}")
            continue
        client.activate(file)
        return policy
    return None
