"""The best that first-order methods can do in t steps, and methods that do it: optimized gradients, Chebyshev, Nesterov's worst functions.

R is the distance ||x_0 - x*||, L the smoothness, kappa = L / mu the condition number.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from gdjax.theory.acceleration import fista_weights
from gdjax.theory.quadratics import Modes


def last_theta(horizon: Int[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """theta_N of the optimized gradient method: (1 + sqrt(1 + 8 theta_{N-1}^2)) / 2 after N - 1 steps of the recursion with 4.

    Kim and Fessler (2016), equation 6.13 (unconfirmed); it is about N / sqrt(2).

    >>> float(last_theta(1))
    2.0
    """
    numbers = np.asarray(horizon, dtype=int)
    before = fista_weights(int(numbers.max()))[numbers]
    return 0.5 * (1.0 + np.sqrt(1.0 + 8.0 * before**2))


def ogm_bound(horizon: Int[ArrayLike, "..."], smoothness: float = 1.0, distance: float = 1.0) -> Float[np.ndarray, "..."]:
    """L R^2 / (2 theta_N^2) >= f(x_N) - f* of the optimized gradient method, for convex f.

    Attained by L x^2 / 2 and by `ogm_threshold`'s Huber function (Kim and Fessler 2016, Thm 2), and no first-order method
    has a better one in as many dimensions as it takes (Drori 2017, Thm 3).

    >>> float(ogm_bound(1))
    0.125
    """
    return smoothness * distance**2 / (2.0 * last_theta(horizon) ** 2)


def ogm_threshold(horizon: Int[ArrayLike, "..."], distance: float = 1.0) -> Float[np.ndarray, "..."]:
    """Where the Huber function that is worst for the optimized gradient method turns linear: R / theta_N^2."""
    return distance / last_theta(horizon) ** 2


def chebyshev_factor(condition_number: float, steps: Int[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """1 / T_t((kappa + 1) / (kappa - 1)) = 2 r^t / (1 + r^(2t)), r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1).

    Of all polynomials p of degree t with p(0) = 1 none has a smaller maximum over [mu, L], so no method gives a better bound on
    ||x_t - x*|| / R for quadratics with that spectrum (Golub and Varga 1961).

    >>> round(float(chebyshev_factor(9.0, 2)), 12)  # r = 1/2
    0.470588235294
    """
    r = (np.sqrt(condition_number) - 1.0) / (np.sqrt(condition_number) + 1.0)
    t = np.asarray(steps, dtype=float)
    return 2.0 * r**t / (1.0 + r ** (2.0 * t))


def chebyshev_errors(
    modes: Modes, smoothness: float, strong_convexity: float, steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, "records p"]:
    """What is left of the error along each eigenvector after t steps of Chebyshev's semi-iteration.

    T_t((L + mu - 2 lambda) / (L - mu)) / T_t((L + mu) / (L - mu)) c_i, with T_t(z) = cos(t arccos z); mu <= lambda <= L.

    >>> chebyshev_errors(Modes(np.array([1.0, 9.0]), np.ones(2)), 9.0, 1.0, [1]).round(12).tolist()
    [[0.8, -0.8]]
    """
    t = np.atleast_1d(np.asarray(steps))[:, None]
    width = smoothness - strong_convexity
    place = (smoothness + strong_convexity - 2.0 * modes.curvatures) / width if width > 0.0 else 0.0 * modes.curvatures
    cosine = np.cos(t * np.arccos(np.clip(place, -1.0, 1.0)))
    return chebyshev_factor(smoothness / strong_convexity, t) * cosine * modes.start


def least_suboptimality(steps: Int[ArrayLike, "..."], horizon: int, smoothness: float = 1.0) -> Float[np.ndarray, "..."]:
    """L / 8 (1 / (s + 1) - 1 / (2 t + 2)): on Nesterov's worst function for t = horizon the least f - f* after s <= 2 t + 1 steps.

    After s steps from 0 of a method whose steps lie in the span of the gradients seen only the first s coordinates differ from 0; it is
    the minimum over those, which conjugate gradients reach. At s = t it is L / (16 (t + 1)) (Nesterov 2004, Thm 2.1.7).

    >>> float(least_suboptimality(3, 3))
    0.015625
    """
    return smoothness / 8.0 * (1.0 / (np.asarray(steps) + 1.0) - 1.0 / (2.0 * horizon + 2.0))


def convex_lower_bound(steps: Int[ArrayLike, "..."], smoothness: float = 1.0, distance: float = 1.0) -> Float[np.ndarray, "..."]:
    """3 L R^2 / (32 (t + 1)^2): no method of that kind has a better bound on f(x_t) - f* over smooth convex f of enough dimensions.

    Nesterov (2004, Thm 2.1.7).

    >>> float(convex_lower_bound(1))
    0.0234375
    """
    return 3.0 * smoothness * distance**2 / (32.0 * (np.asarray(steps) + 1.0) ** 2)


def strongly_convex_lower_bound(
    condition_number: float, steps: Int[ArrayLike, "..."], strong_convexity: float = 1.0, distance: float = 1.0
) -> Float[np.ndarray, "..."]:
    """mu / 2 r^(2t) R^2 <= f(x_t) - f*, r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1), for any method of that kind on the worst function.

    Nesterov (2004, Thm 2.1.13); it is ||x_t - x*|| >= r^t R with f - f* >= mu / 2 ||x - x*||^2.

    >>> float(strongly_convex_lower_bound(9.0, 1))
    0.125
    """
    r = (np.sqrt(condition_number) - 1.0) / (np.sqrt(condition_number) + 1.0)
    return 0.5 * strong_convexity * r ** (2.0 * np.asarray(steps, dtype=float)) * distance**2
