"""Descriptors that are this process's alone: a child that the robot's program forks is left without them.

`multiprocessing` forks, and a child has every descriptor of its parent, locks and pipes among them: it would hold
the robot's directory, and keep the encoder waiting for an end of its input, for as long as it lives.
"""

from __future__ import annotations

import os

_owned: set[int] = set()


def own(descriptor: int) -> int:
    """The descriptor, from now on this process's alone."""
    _owned.add(descriptor)
    return descriptor


def disown(descriptor: int) -> int:
    """The descriptor, before whoever opened it closes it: its number may soon be another file's."""
    _owned.discard(descriptor)
    return descriptor


def close(descriptor: int) -> None:
    """Close one that is owned."""
    os.close(disown(descriptor))


def _let_go() -> None:
    """In a child: in place of each something that takes nothing, because objects still know the numbers."""
    try:
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no descriptor is left; the one that is given up stays closed
        nothing = -1
    for descriptor in _owned:
        if nothing < 0:
            os.close(descriptor)
        else:
            os.dup2(nothing, descriptor, inheritable=False)
    if nothing >= 0:
        os.close(nothing)
    _owned.clear()


os.register_at_fork(after_in_child=_let_go)
