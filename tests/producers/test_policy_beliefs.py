"""What a robot believes of a rollout while operators' keys change."""

from __future__ import annotations

from infra.clock import ManualClock
from infra.policies import rollout
from infra.policies.announced import Announced
from infra.policies.keys import Keyring, SigningKey
from infra.policies.rollout import Change
from producers.policy_beliefs import Beliefs
from producers.policy_feed import Heard
from schemas.events import PolicyRollout
from tests.producers.fakes import LEARNER, announcement, rolled_out, sent

OLD, NEW = SigningKey.generate(), SigningKey.generate()


class Disk:
    """The rollout of a robot across its boots; versions 1 and 2 are announced at each."""

    def __init__(self) -> None:
        self.saved: Announced[PolicyRollout] | None = None

    def boot(self, *pinned: SigningKey) -> Beliefs:
        ring = Keyring([key.public for key in pinned])
        beliefs = Beliefs("line", "arm-1", Keyring([LEARNER.public]), ring, ManualClock(), self.save)
        if self.saved is not None:
            beliefs.recall_rollout(self.saved)
        beliefs.recalled()
        for number in (1, 2):
            beliefs.hear(Heard(f"line/{number}", number, sent(announcement(number, b"w"))))
        return beliefs

    def save(self, announced: Announced[PolicyRollout]) -> None:
        self.saved = announced


def hear(beliefs: Beliefs, state: PolicyRollout, by: SigningKey, offset: int) -> None:
    beliefs.hear(Heard("line", offset, sent(state, by=by)))


def test_one_state_by_the_new_key_while_both_are_pinned_takes_a_robot_over_to_it() -> None:
    disk, held = Disk(), rolled_out(rollout.hold("line", 1))
    hear(disk.boot(OLD), held, OLD, 0)
    both = disk.boot(OLD, NEW)
    again = rollout.hold("line", 1)(held, Change("ada", "a new key", held.written_at))
    hear(both, again, NEW, 1)
    alone = disk.boot(NEW)
    assert (alone.generation, alone.preferences()) == (2, [1])


def test_without_that_state_a_robot_follows_nobody_until_the_new_key_says_something() -> None:
    disk, held = Disk(), rolled_out(rollout.hold("line", 1))
    hear(disk.boot(OLD), held, OLD, 0)
    alone = disk.boot(NEW)
    hear(alone, held, OLD, 0)
    assert alone.preferences() == []  # what ran last goes on
    hear(alone, rolled_out(rollout.pin("line", "arm-2", 2)), NEW, 1)
    assert alone.preferences() == [2, 1]  # a state that was built on nothing: the hold is gone


def test_what_is_written_over_a_forgery_is_newer_to_robots_that_know_more_than_the_topic_keeps() -> None:
    disk = Disk()
    beliefs = disk.boot(OLD)
    hear(beliefs, rolled_out(*[rollout.hold("line", 2)] * 7), OLD, 0)
    hear(beliefs, rolled_out(rollout.hold("line", 2)).model_copy(update={"generation": 2**62}), NEW, 1)
    by = Change("ada", "forged", ManualClock().now())
    restarted = rollout.hold("line", 1)(None, by)
    hear(beliefs, restarted, OLD, 2)
    assert beliefs.preferences()[0] == 2  # replayed, to this robot
    over = rollout.going_on_from(int(by.at.timestamp()), rollout.hold("line", 1), "line")(None, by)
    hear(beliefs, over, OLD, 3)
    assert beliefs.preferences() == [1]
