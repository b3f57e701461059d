"""`sop keys` and `sop policies`: who signs, and which robots run which versions.

Other modules add commands to these groups: `policies_app.command()(...)`.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from infra.command import ask_or_fail, settings_or_fail
from infra.errors import InfraError, SettingInvalid
from infra.policies.errors import KeyUnusable
from infra.terminal import fail
from schemas.errors import SchemaError

if TYPE_CHECKING:
    from infra.policies.log import Control
    from infra.policies.rollout import Transition
    from infra.settings import Settings
    from schemas.events import PolicyRollout

keys_app = typer.Typer(
    help="Ed25519 keys with which the learner, operators and the guard sign.", no_args_is_help=True
)
policies_app = typer.Typer(
    help="Which robots run which policy versions. Each change is one signed state of the whole line.",
    no_args_is_help=True,
)

Base = Annotated[Path, typer.Argument(help="Where: BASE.key is the private key, BASE.pub the public ones.")]
Line = Annotated[str | None, typer.Option("--policy", help="Policy line; by default SOP_LEARNER__POLICY.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept with the state.")]
Author = Annotated[str | None, typer.Option("--author", help="Who; by default the user's name.")]
Version = Annotated[int, typer.Argument(min=1, help="Policy version.")]
MaybeVersion = Annotated[int | None, typer.Argument(min=1, help="Policy version.")]
Over = Annotated[
    bool,
    typer.Option(
        "--over-unbelieved",
        help="What is not believed of this line's rollout (`show`) is forged: drop it, and go on from the rest.",
    ),
]
Robot = Annotated[str, typer.Argument(help="Name of the robot.")]


@keys_app.command("new")
def keys_new(base: Base) -> None:
    """Make a key pair. Nothing is ever written over."""
    _make(base, ())


@keys_app.command("rotate")
def keys_rotate(old: Annotated[Path, typer.Argument(help="The key in use, as BASE.")], base: Base) -> None:
    """Make a successor's pair. BASE.pub pins both: give that to the robots first, then the key to who signs."""
    from infra.policies.keys import read_public  # noqa: PLC0415

    try:
        earlier = read_public(old.with_name(f"{old.name}.pub"))
    except KeyUnusable as error:
        fail(str(error), code=2)
    _make(base, earlier)


@policies_app.command("list")
def list_(policy: Line = None) -> None:
    """Versions of a line, and what each is to the fleet."""
    from infra.policies.present import show_versions  # noqa: PLC0415

    settings, line = _line(policy)
    show_versions(line, _read(settings), Console())


@policies_app.command()
def show(policy: Line = None) -> None:
    """The rollout state of a line: what is held, tried, pinned, and who said so."""
    from infra.policies.present import show_rollout  # noqa: PLC0415

    settings, line = _line(policy)
    show_rollout(line, _read(settings), Console())


@policies_app.command()
def follow(policy: Line = None, reason: Reason = "", author: Author = None, over: Over = False) -> None:
    """All robots take the newest version, now and later."""
    from infra.policies import rollout  # noqa: PLC0415

    _change(policy, reason, author, lambda line, _control: rollout.follow(line), over=over)


@policies_app.command()
def hold(
    version: MaybeVersion = None,
    policy: Line = None,
    reason: Reason = "",
    author: Author = None,
    over: Over = False,
) -> None:
    """All robots run this version (by default the newest); later ones are candidates."""
    from infra.policies import orders  # noqa: PLC0415

    _change(policy, reason, author, lambda line, control: orders.hold(control, line, version), over=over)


@policies_app.command()
def canary(
    version: Version,
    *,
    fraction: Annotated[
        float, typer.Option(help="Share of the fleet, above 0 and below 1.", min=0.0, max=1.0)
    ] = 0.0,
    robot: Annotated[
        list[str] | None, typer.Option(help="Name of a robot that tries it; may be repeated.")
    ] = None,
    base: Annotated[int | None, typer.Option(help="What the others run, where nothing is held yet.")] = None,
    policy: Line = None,
    reason: Reason = "",
    author: Author = None,
    over: Over = False,
) -> None:
    """A part of the fleet tries a version. One at a time; others wait their turn."""
    from infra.policies import orders  # noqa: PLC0415

    def transition(line: str, control: Control) -> Transition:
        return orders.canary(control, line, version, fraction=fraction, robots=tuple(robot or ()), base=base)

    _change(policy, reason, author, transition, over=over, robots=robot or ())


@policies_app.command()
def promote(
    version: MaybeVersion = None,
    policy: Line = None,
    reason: Reason = "",
    author: Author = None,
    over: Over = False,
) -> None:
    """All robots run this version, by default the canary, and hold it."""
    from infra.policies import orders  # noqa: PLC0415

    _change(policy, reason, author, lambda line, control: orders.promote(control, line, version), over=over)


@policies_app.command()
def rollback(
    to: Annotated[int | None, typer.Option(min=1, help="The version to go back to.")] = None,
    policy: Line = None,
    reason: Reason = "",
    author: Author = None,
    over: Over = False,
) -> None:
    """Back to the version before, or from a canary to what the others run; the learner goes on from it.

    A second one names its version (--to): what the first one left is not gone back to by itself.
    """
    from infra.policies import orders  # noqa: PLC0415

    _change(policy, reason, author, lambda line, control: orders.rollback(control, line, to), over=over)


@policies_app.command()
def pin(
    robot: Robot,
    version: Version,
    *,
    policy: Line = None,
    reason: Reason = "",
    author: Author = None,
    over: Over = False,
) -> None:
    """One robot runs one version, whatever the others do."""
    from infra.policies import orders, rollout  # noqa: PLC0415

    def transition(line: str, control: Control) -> Transition:
        return rollout.pin(line, robot, orders.published(control, line, version))

    _change(policy, reason, author, transition, over=over, robots=(robot,))


@policies_app.command()
def unpin(
    robot: Robot, policy: Line = None, reason: Reason = "", author: Author = None, over: Over = False
) -> None:
    """The robot does as the others again."""
    from infra.policies import rollout  # noqa: PLC0415

    _change(policy, reason, author, lambda line, _control: rollout.unpin(line, robot), over=over)


def _make(base: Path, earlier: tuple[str, ...]) -> None:
    from infra.policies.keys import write_pair  # noqa: PLC0415

    try:
        key = write_pair(base, earlier=earlier)
    except KeyUnusable as error:
        fail(str(error), code=2)
    pinned = json.dumps([key.public, *earlier])
    typer.echo(f"key {key.key_id}: {base}.key (secret, for SOP_POLICIES__SIGNING_KEY), {base}.pub")
    typer.echo(f"robots pin: SOP_POLICIES__LEARNER_KEYS='{pinned}' (a learner's) or SOP_POLICIES__OPERATOR_KEYS=…")


def _line(policy: str | None) -> tuple[Settings, str]:
    from infra.policies.names import LINE  # noqa: PLC0415

    settings = settings_or_fail()
    line = policy or settings.learner.policy
    if not LINE.fullmatch(line):
        fail(f"{line!r} is no policy line: letters, digits, - and _", code=2)
    ask_or_fail(settings, ["Kafka", "schema registry"])
    return settings, line


def _read(settings: Settings) -> Control:
    from infra.policies.log import RolloutLog  # noqa: PLC0415

    try:
        return RolloutLog(settings).read()
    except (SettingInvalid, KeyUnusable) as error:
        fail(str(error), code=2)
    except (InfraError, SchemaError) as error:
        fail(str(error))


def _change(
    policy: str | None,
    reason: str,
    author: str | None,
    transition: Callable[[str, Control], Transition],
    *,
    over: bool,
    robots: Collection[str] = (),
) -> None:
    from infra.clock import SystemClock  # noqa: PLC0415
    from infra.policies.log import RolloutLog  # noqa: PLC0415
    from infra.policies.orders import no_versions  # noqa: PLC0415
    from infra.policies.present import sentence  # noqa: PLC0415
    from infra.policies.robots import unheard_of  # noqa: PLC0415
    from infra.policies.rollout import Change  # noqa: PLC0415

    settings, line = _line(policy)
    try:
        log = RolloutLog(settings)
        control = log.read()
        change = transition(line, control)
        by = Change(author or getpass.getuser(), reason, SystemClock().now())
        state: PolicyRollout = log.change(line, change, by, over_unbelieved=over)
    except (SettingInvalid, KeyUnusable) as error:
        fail(str(error), code=2)
    except (InfraError, SchemaError) as error:
        fail(str(error))
    typer.echo(sentence(state))
    if why := no_versions(control, line):
        typer.echo(f"note: {why}", err=True)
    if robots:
        for note in unheard_of(settings, robots):
            typer.echo(note, err=True)
