"""What adaptive methods do exactly: Adam's first step, RMSprop's cycle, AdaGrad's regret, and a stream on which Adam's never vanishes."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float


def first_adam_step(gradient: Float[ArrayLike, "..."], learning_rate: float, eps: float) -> Float[np.ndarray, "..."]:
    """-eta g / (|g| + eps): both moments with their bias corrected are the gradient's own, whatever b1 and b2 are (Kingma and Ba 2015).

    >>> float(first_adam_step(2.0, 0.1, 0.0))
    -0.1
    """
    g = np.asarray(gradient, dtype=float)
    return -learning_rate * g / (np.abs(g) + eps)


def rmsprop_cycle(learning_rate: float) -> float:
    """eta / 2, the size of x where RMSprop (eps = 0) ends on a symmetric f of one variable: x -> -x, at any curvature.

    There |g| is the same in every step, so that its mean square is g^2 and the step is eta.
    """
    return 0.5 * learning_rate


def adagrad_regret(gradients: Float[ArrayLike, "steps p"], diameter: float) -> Float[np.ndarray, " steps"]:
    """sum_j D sqrt(2 sum_{s <= t} g_sj^2) after each step: no regret of AdaGrad at the rate D / sqrt 2 on a box of side D is larger.

    Duchi, Hazan and Singer (2011), with the constant of Streeter and McMahan (2010).

    >>> adagrad_regret([[1.0], [1.0]], 2.0).round(12).tolist()
    [2.828427124746, 4.0]
    """
    g = np.asarray(gradients, dtype=float)
    return diameter * np.sqrt(2.0 * np.cumsum(g**2, axis=0)).sum(axis=1)


def adagrad_rate(diameter: float) -> float:
    """D / sqrt 2, the rate of `adagrad_regret`."""
    return diameter / np.sqrt(2.0)


def stuck_regret(slopes: Float[ArrayLike, " period"]) -> float:
    """The regret a step of staying at the wrong end of [-1, 1] under f_t(x) = c_t x: 2 mean c, where the mean is positive.

    Reddi et al. (2018, Thm 1): Adam with b1 = 0, b2 = 1 / (1 + C^2) does so on C, -1, -1, C, ..

    >>> stuck_regret([3.0, -1.0, -1.0]) * 3
    2.0
    """
    return 2.0 * abs(float(np.mean(slopes)))
