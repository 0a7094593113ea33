"""Gradient descent on all L-smooth convex f at once: the worst case after N steps, and steps that better it.

h = eta L is the rate in units of 1 / L, and R = ||x_0 - x*||. The functions that attain the worst case are one-dimensional: Huber's,
L x^2 / 2 up to |x| = tau and straight beyond, and the parabola.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float, Int

SILVER = 1.0 + np.sqrt(2.0)
"""The silver ratio."""

SILVER_EXPONENT = float(np.log2(SILVER))
"""1.2715533: f - f* falls as 1 / N to this power with silver steps, where constant steps have 1 / N."""


def huber_threshold(num_steps: Float[ArrayLike, "..."], relative_rate: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """tau / R = 1 / (2 N h + 1): the Huber function that N steps get least far on (Drori and Teboulle 2014).

    >>> float(huber_threshold(5, 0.5))
    0.16666666666666666
    """
    return 1.0 / (2.0 * np.asarray(num_steps) * np.asarray(relative_rate) + 1.0)


def huber_case(num_steps: Float[ArrayLike, "..."], relative_rate: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """(f_N - f*) / (L R^2) = 1 / (4 N h + 2) on that Huber function; for h <= 1 nothing is worse.

    Drori and Teboulle (2014), Thm 3.1.

    >>> float(huber_case(2, 1.0))
    0.1
    """
    return 0.5 * huber_threshold(num_steps, relative_rate)


def parabola_case(num_steps: Float[ArrayLike, "..."], relative_rate: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """(f_N - f*) / (L R^2) = (1 - h)^(2 N) / 2 on L x^2 / 2, which long steps overshoot on.

    >>> float(parabola_case(1, 1.5))
    0.125
    """
    return 0.5 * (1.0 - np.asarray(relative_rate)) ** (2 * np.asarray(num_steps))


def worst_case(num_steps: Float[ArrayLike, "..."], relative_rate: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """The largest (f_N - f*) / (L R^2) over all smooth convex f, 0 <= h <= 2: the worse of Huber's and the parabola.

    For h <= 1 Drori and Teboulle (2014); beyond, Taylor, Hendrickx and Glineur (2017) conjecture it.

    >>> worst_case(5, [0.5, 1.9]).round(6).tolist()
    [0.083333, 0.174339]
    """
    return np.maximum(huber_case(num_steps, relative_rate), parabola_case(num_steps, relative_rate))


def best_constant_rate(num_steps: int) -> float:
    """The h in (1, 2) with the best worst case after N steps: 1 / (2 N h + 1) = (1 - h)^(2 N), where both cases are alike.

    Taylor, Hendrickx and Glineur (2017), a conjecture there. It goes to 2 as N grows.

    >>> [round(best_constant_rate(n), 6) for n in (1, 5, 100)]
    [1.5, 1.747054, 1.970547]
    """
    from scipy.optimize import brentq  # a quarter of a second to import, which every start of the application would take

    def excess(h: float) -> float:
        return np.log(2.0 * num_steps * h + 1.0) + 2.0 * num_steps * np.log(h - 1.0)

    return float(brentq(excess, 1.0 + 1e-9, 2.0, xtol=1e-15))  # pyright: ignore[reportArgumentType]  (a number, without full_output)


def textbook_bound(num_steps: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """(f_N - f*) / (L R^2) <= 2 / (N + 4) at h = 1 (Nesterov 2004, Cor. 2.1.2): eight times the worst case for many steps.

    >>> float(textbook_bound(4))
    0.25
    """
    return 2.0 / (np.asarray(num_steps) + 4.0)


def silver_steps(num_steps: int) -> Float[np.ndarray, " num_steps"]:
    """h_i = 1 + rho^(v(i) - 1), i = 1 .. N, with rho = 1 + sqrt(2) and 2^v(i) the power of 2 in i (Altschuler and Parrilo 2023).

    >>> silver_steps(4).round(4).tolist()
    [1.4142, 2.0, 1.4142, 3.4142]
    """
    i = np.arange(1, num_steps + 1)
    return 1.0 + SILVER ** (np.log2(i & -i) - 1.0)


def silver_bound(doublings: Int[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """(f_N - f*) / (L R^2) <= 1 / (1 + sqrt(4 rho^(2 k) - 3)) after N = 2^k - 1 silver steps, for every smooth convex f.

    Altschuler and Parrilo (2023), part II, Thm 1.1.

    >>> silver_bound([1, 10]).round(9).tolist()
    [0.181584659, 7.4333e-05]
    """
    return 1.0 / (1.0 + np.sqrt(4.0 * SILVER ** (2.0 * np.asarray(doublings)) - 3.0))


def silver_huber_case(doublings: Int[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """(f_N - f*) / (L R^2) = 1 / (4 rho^k - 2) after N = 2^k - 1 silver steps on the Huber function that they get least far on.

    All steps together are rho^k - 1 long, and on a straight line only that counts; half of `silver_bound` for many steps.

    >>> silver_huber_case([1, 10]).round(9).tolist()
    [0.130601937, 3.7172e-05]
    """
    return 1.0 / (4.0 * SILVER ** np.asarray(doublings, dtype=float) - 2.0)
