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


def descending_regret(
    gradients: Float[ArrayLike, " steps"], rates: Float[ArrayLike, " steps"], diameter: float
) -> Float[np.ndarray, " steps"]:
    """D^2 / (2 eta_t) + sum_{s <= t} eta_s g_s^2 / 2: the regret of projected descent in one variable whose rates never rise.

    Zinkevich (2003). AMSGrad with b1 = 0 is that, with eta_t = eta / sqrt(t vhat_t); Adam is not, since its rates can rise.

    >>> descending_regret([1.0], [1.0], 2.0).tolist()
    [2.5]
    """
    g, eta = np.asarray(gradients, dtype=float), np.asarray(rates, dtype=float)
    return 0.5 * diameter**2 / eta + 0.5 * np.cumsum(eta * g**2)


def amsgrad_rates(gradients: Float[ArrayLike, " steps"], learning_rate: float, b2: float) -> Float[np.ndarray, " steps"]:
    """eta / sqrt(t vhat_t) with v_t = b2 v_{t-1} + (1 - b2) g_t^2 and vhat_t the largest v so far (Reddi et al. 2018).

    >>> amsgrad_rates([2.0, 0.0], 1.0, 0.0).round(6).tolist()
    [0.5, 0.353553]
    """
    g, v = np.asarray(gradients, dtype=float), 0.0
    squares = np.empty(len(g))
    for step, square in enumerate(g**2):
        v = b2 * v + (1.0 - b2) * square
        squares[step] = v
    return learning_rate / np.sqrt(np.arange(1, len(g) + 1) * np.maximum.accumulate(squares))


def amsgrad_swing(slopes: Float[ArrayLike, " period"], b1: float, b2: float) -> Float[np.ndarray, " period"]:
    """How far from the end -1 AMSGrad is after each loss of a period, in units of eta / sqrt t, once it has arrived: x + 1.

    x <- max(-1, x - eta m_t / sqrt(t vhat)) with the periodic m_t, and with vhat at the largest v that the stream comes to: for slopes
    whose mean is positive, which push x back against the end in every period, and a t by which a period is nothing (Reddi et al. 2018).

    >>> amsgrad_swing([3.0, -1.0, -1.0], 0.0, 0.0).round(6).tolist()
    [0.0, 0.333333, 0.666667]
    """
    g = np.asarray(slopes, dtype=float)
    rounds = 1 + int(np.ceil(40.0 / -np.log(max(b1, b2, 1e-17)) / g.size))
    m = v = largest = x = 0.0
    swing = np.empty(g.size)
    for _ in range(rounds):  # until what is left of the start is below e^-40
        for c in g:
            v = b2 * v + (1.0 - b2) * c**2
            m, largest = b1 * m + (1.0 - b1) * c, max(largest, v)
    for _ in range(2):
        for place, c in enumerate(g):
            m = b1 * m + (1.0 - b1) * c
            swing[place] = x = max(0.0, x - m / np.sqrt(largest))
    return swing
