"""What the last step of a subgradient method can be promised on a convex f with |g| <= G begun at distance D from a minimizer.

T is the number of points x_1 .. x_T, so that T - 1 steps lead to the last of them; N + 1 = T in papers that count steps.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import ArrayLike, Float


def last_iterate_bound(
    shape: Float[ArrayLike, " points"], learning_rate: Float[ArrayLike, "..."], *, distance: float = 1.0, slope: float = 1.0
) -> Float[np.ndarray, "..."]:
    """f(x_T) - f* <= D^2 / (2 gamma S) + gamma G^2 K / 2, for x_{t+1} = x_t - gamma eta_t g_t, with any positive shape eta_1 .. eta_T.

    S = sum eta_t and K = sum eta_t^2 / S + sum_{k < T} eta_k / (sum_{t > k} eta_t) (sum_{t >= k} eta_t^2) / (sum_{t >= k} eta_t)
    (Defazio et al. 2023; Schaipp et al. 2025). The last entry of the shape takes no step, but is in the bound: it must not be 0.

    >>> float(last_iterate_bound([1.0, 1.0], 1.0))  # 1 / 4 + (1 + 1) / 2
    1.25
    """
    bias, variance = _terms(np.asarray(shape, dtype=float))
    gamma = np.asarray(learning_rate, dtype=float)
    return distance**2 * bias / gamma + slope**2 * variance * gamma


def best_base_rate(shape: Float[ArrayLike, " points"], *, distance: float = 1.0, slope: float = 1.0) -> float:
    """The rate gamma at which `last_iterate_bound` is least.

    >>> best_base_rate([1.0])
    1.0
    """
    bias, variance = _terms(np.asarray(shape, dtype=float))
    return distance / slope * math.sqrt(bias / variance)


def best_last_iterate_bound(shape: Float[ArrayLike, " points"], *, distance: float = 1.0, slope: float = 1.0) -> float:
    """`last_iterate_bound` at its `best_base_rate`: D G times a number of the shape alone."""
    bias, variance = _terms(np.asarray(shape, dtype=float))
    return 2.0 * distance * slope * math.sqrt(bias * variance)


def constant_bound(num_points: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """D G sqrt(1 + H_{T-1}) / sqrt(T), H the harmonic numbers: `best_last_iterate_bound` of a constant rate in closed form.

    >>> constant_bound(1)
    1.0
    """
    return distance * slope * math.sqrt((1.0 + np.sum(1.0 / np.arange(1, num_points))) / num_points)


def best_constant_bound(num_steps: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """B R sqrt(1 + ln(N) / 4) / sqrt(N + 1): the last of N steps at the best constant rate (Zamani and Glineur 2023).

    >>> best_constant_bound(1) == 0.5**0.5
    True
    """
    return distance * slope * math.sqrt((1.0 + 0.25 * math.log(num_steps)) / (num_steps + 1))


def best_constant_rate(num_steps: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """R / (B sqrt((N + 1) (1 + ln(N) / 4))): the rate that balances the two terms of `best_constant_bound`."""
    return distance / (slope * math.sqrt((num_steps + 1) * (1.0 + 0.25 * math.log(num_steps))))


def optimal_bound(num_steps: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """B R / sqrt(N + 1): no method does better in N steps on every such f, and linear decay does as well (Zamani and Glineur 2023).

    Its steps are R (N + 1 - k) / (B (N + 1)^(3/2)), k = 1 .. N; max |x_i| of N + 1 numbers, begun with all equal, attains it.

    >>> optimal_bound(3)
    0.5
    """
    return distance * slope / math.sqrt(num_steps + 1)


def linear_decay_rate(num_steps: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """R N / (B (N + 1)^(3/2)), the first of the steps R (N + 1 - k) / (B (N + 1)^(3/2)): the others follow as 1 - t / N."""
    return distance * num_steps / (slope * (num_steps + 1) ** 1.5)


def schedule_free_bound(num_points: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """D G / sqrt(T), for the average of T points, at the rate D / (G sqrt T) (Defazio et al. 2024, Thm 1)."""
    return distance * slope / math.sqrt(num_points)


def schedule_free_rate(num_points: int, *, distance: float = 1.0, slope: float = 1.0) -> float:
    """D / (G sqrt T)."""
    return distance / (slope * math.sqrt(num_points))


def polyak_contraction(condition_number: float) -> float:
    """(kappa - 1) / (kappa + 1), the factor on ||x - x*|| in a step of length 2 (f - f*) / |grad f|^2, on a quadratic.

    Barre, Taylor and d'Aspremont (2020); by Kantorovich's inequality, with equality in every step where all of the error is along the
    flattest and the steepest direction, with equal shares lambda e^2 of f.

    >>> polyak_contraction(3.0)
    0.5
    """
    return (condition_number - 1.0) / (condition_number + 1.0)


def _terms(shape: Float[np.ndarray, " points"]) -> tuple[float, float]:
    """1 / (2 S) and K / 2."""
    sums = np.cumsum(shape[::-1])[::-1]  # from k on
    squares = np.cumsum(shape[::-1] ** 2)[::-1]
    later = np.sum(shape[:-1] / sums[1:] * squares[:-1] / sums[:-1])
    return 0.5 / sums[0], 0.5 * (squares[0] / sums[0] + later)
