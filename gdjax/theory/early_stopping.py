"""Gradient descent stopped early is nearly ridge regression: what each leaves of a direction, and how far apart their risks can be.

Along an eigenvector of X'X / n with eigenvalue s, descent from 0 on J = (1/n) ||X theta - y||^2 with rate eta has after t steps the share
1 - (1 - y)^t of least squares' coefficient, y = 2 eta s; ridge regression, J + lambda ||theta||^2, has s / (s + lambda). They are compared
at lambda = 1 / (2 eta t), where the second is x / (1 + x) with x = t y. As eta -> 0 with eta t kept, the first is 1 - e^-x: the flow,
here num_steps = inf (Ali, Kolter and Tibshirani 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import ArrayLike, Float


def descent_filter(share: Float[ArrayLike, "..."], num_steps: float) -> Float[np.ndarray, "..."]:
    """1 - (1 - y)^t, the share of least squares' coefficient after t steps; 1 - e^-y of the flow, whose y is 2 eta t s.

    >>> float(descent_filter(0.5, 2))
    0.75
    """
    return 1.0 - _left(np.asarray(share, dtype=float) * (1.0 if math.isinf(num_steps) else num_steps), num_steps)


def ridge_filter(share: Float[ArrayLike, "..."], num_steps: float) -> Float[np.ndarray, "..."]:
    """t y / (1 + t y), the share of least squares' coefficient at lambda = 1 / (2 eta t).

    >>> float(ridge_filter(0.5, 2))
    0.5
    """
    x = np.asarray(share, dtype=float) * num_steps
    return x / (1.0 + x)


def filter_ratio(num_steps: float = math.inf) -> tuple[float, float]:
    """The largest ratio of descent's share to ridge regression's over 0 < y <= 1, and the x = t y where it is.

    (1 - (1 - y)^t) (1 + x) / x. Ratios of what is left, (1 - y)^t (1 + x), are never above 1.

    >>> [round(number, 9) for number in filter_ratio()]
    [1.298425608, 1.793282133]
    >>> filter_ratio(1)[0]
    2.0
    """

    def rises(x: float) -> bool:
        left, slope = float(_left(x, num_steps)), _slope(x, num_steps)
        return slope * x * (1.0 + x) > 1.0 - left

    at = _turning_point(rises, num_steps)
    return (1.0 - float(_left(at, num_steps))) * (1.0 + at) / at, at


def risk_ratio_bound(num_steps: float = math.inf) -> float:
    """The square of the largest `filter_ratio`: E ||theta_t - theta||^2 is at most so many times ridge regression's.

    For every X, theta and noise of equal variances: the variance has the square of the share, and the squared bias is no larger. For the
    flow it is the "1.69 times" of Ali, Kolter and Tibshirani (2019, Thm 1), for finite t it is more, 4 after a single step.

    >>> round(risk_ratio_bound(), 4)
    1.6859
    """
    return filter_ratio(num_steps)[0] ** 2


def bayes_ratio_bound(num_steps: float = math.inf) -> float:
    """The largest ratio where theta ~ N(0, tau^2 I) and lambda = sigma^2 / (n tau^2), which is ridge regression's best.

    Along an eigenvector that is (1 + x) ((1 - y)^(2t) + (1 - (1 - y)^t)^2 / x). For the flow it is 1.2147 (Ali, Kolter and Tibshirani
    2019, Thm 3; unconfirmed).

    >>> round(bayes_ratio_bound(), 4)
    1.2147
    """
    at = _highest(lambda x: _bayes_ratio(x, num_steps), num_steps)
    return float(_bayes_ratio(at, num_steps))


def _bayes_ratio(x: float, num_steps: float) -> float:
    left = float(_left(x, num_steps))
    return (1.0 + x) * (left**2 + (1.0 - left) ** 2 / x)


def _left(x: Float[ArrayLike, "..."], num_steps: float) -> Float[np.ndarray, "..."]:
    """(1 - x / t)^t, or e^-x."""
    x = np.asarray(x, dtype=float)
    if math.isinf(num_steps):
        return np.exp(-x)
    return (1.0 - x / num_steps) ** num_steps


def _slope(x: float, num_steps: float) -> float:
    """(1 - x / t)^(t - 1), minus the derivative of `_left`."""
    return math.exp(-x) if math.isinf(num_steps) else (1.0 - x / num_steps) ** (num_steps - 1.0)


def _turning_point(rises: Callable[[float], bool], num_steps: float) -> float:
    """Where a function of x on (0, t] that rises and then falls is highest."""
    low, high = 1e-9, min(float(num_steps), 50.0)
    if rises(high):
        return high
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rises(middle) else (low, middle)
    return 0.5 * (low + high)


def _highest(function: Callable[[float], float], num_steps: float) -> float:
    """The same of a function without a derivative: by a grid, and by halving around its best."""
    low, high = 1e-3, min(float(num_steps), 50.0)
    for _ in range(12):
        grid = np.linspace(low, high, 201)
        best = int(np.argmax([function(float(x)) for x in grid]))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 200)])
    return 0.5 * (low + high)
