"""Classifier-free guidance of a policy that is told whether its action is good (RECAP, arXiv 2511.14759)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from learner.policies.base import POSITIVE, UNCONDITIONED, Floats


def guided(answer: Callable[[int], Floats], guidance: float) -> Floats:
    """What a conditioned policy answers to I = 1, with guidance β.

    β = 1 asks once, as in the paper's rollouts; it evaluates with 1.5 to 2.5: u + β·(c − u), u being the answer
    without an indicator and c that under I = 1.
    """
    conditioned = answer(POSITIVE)
    if guidance == 1.0:
        return conditioned
    plain = answer(UNCONDITIONED)
    return plain + np.float32(guidance) * (conditioned - plain)
