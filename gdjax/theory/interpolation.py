"""SGD on least squares that fits every example: which batch size is worth it.

Rows x_i have norms of at most sqrt(beta), y = X theta* exactly, and lambda are eigenvalues of G = X'X / n, lambda_1 the largest and
lambda_k the smallest that is not zero. Batches of m are drawn with replacement. The rate eta is that of half the square: twice the
learning rate of (1/n)||X theta - y||^2.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float


def step_factor(
    rate: Float[ArrayLike, "..."], batch_size: Float[ArrayLike, "..."], curvature: Float[ArrayLike, "..."], *, beta: float = 1.0
) -> Float[np.ndarray, "..."]:
    """1 - 2 eta lambda + eta^2 (beta lambda / m + (m - 1) lambda^2 / m): a step's factor on E||e||^2, for e along an eigenvector.

    It is exact where every row has the norm sqrt(beta), else an upper bound.

    >>> float(step_factor(1.0, 1, 0.25))
    0.75
    """
    eta, m, of_g = (np.asarray(value, dtype=float) for value in (rate, batch_size, curvature))
    return 1.0 - 2.0 * eta * of_g + eta**2 * (beta * of_g / m + (m - 1.0) * of_g**2 / m)


def contraction(
    rate: Float[ArrayLike, "..."], batch_size: Float[ArrayLike, "..."], largest: float, smallest: float, *, beta: float = 1.0
) -> Float[np.ndarray, "..."]:
    """g = max over lambda of `step_factor`: E||e_{t+1}||^2 <= g E||e_t||^2, and the least such number where all rows have one norm.

    Ma, Bassily and Belkin (2018), Thm 1. A step's factor is convex in lambda, so that its largest value is at an end.
    """
    return np.maximum(step_factor(rate, batch_size, largest, beta=beta), step_factor(rate, batch_size, smallest, beta=beta))


def critical_batch_size(largest: float, smallest: float, *, beta: float = 1.0) -> float:
    """m* = beta / (lambda_1 - lambda_k) + 1, up to which a batch of m is worth m steps of one (Ma, Bassily and Belkin 2018, Thm 3).

    >>> critical_batch_size(0.125, 0.0)
    9.0
    """
    return beta / (largest - smallest) + 1.0 if largest > smallest else np.inf


def best_rate(batch_size: Float[ArrayLike, "..."], largest: float, smallest: float, *, beta: float = 1.0) -> Float[np.ndarray, "..."]:
    """The rate at which `contraction` is least: m / (beta + (m - 1) lambda_k) up to m*, else 2 m / (beta + (m - 1)(lambda_1 + lambda_k)).

    Ma, Bassily and Belkin (2018), Thm 2.

    >>> best_rate([1, 9, 100], 0.125, 0.0).round(3).tolist()
    [1.0, 9.0, 14.953]
    """
    m = np.asarray(batch_size, dtype=float)
    below, above = m / (beta + (m - 1.0) * smallest), 2.0 * m / (beta + (m - 1.0) * (largest + smallest))
    return np.where(m <= critical_batch_size(largest, smallest, beta=beta), below, above)
