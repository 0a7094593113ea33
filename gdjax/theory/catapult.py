"""Gradient descent on a product of two factors, f(u, v) = (u'v - y)^2 / 2: two numbers tell all of it, also past its stability edge.

They are the residual r = u'v - y and the trace lambda = ||u||^2 + ||v||^2, the Hessian's largest eigenvalue where r = 0. It is the
network with one hidden layer and no activation of Lewkowycz et al. (2020): above 2 / lambda the residual grows until it has thrown
the factors to where lambda is lower ("catapult"); above about 4 / lambda they never come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

CATAPULT = 4.0
"""Times 1 / lambda: near r = 0 lambda falls in every step below this rate, and grows above it (Lewkowycz et al. 2020, section 2)."""


class State(NamedTuple):
    """What gradient descent on two factors goes by."""

    residual: Float[np.ndarray, "..."]
    trace: Float[np.ndarray, "..."]


def after_step(state: State, rate: Float[ArrayLike, "..."], target: float = 1.0) -> State:
    """r+ = r (1 - eta lambda + eta^2 r (r + y)) and lambda+ = lambda + eta r (eta r lambda - 4 (r + y)), a step from (u, v).

    The step is to (u - eta r v, v - eta r u).

    >>> [float(x) for x in after_step(State(np.array(1.0), np.array(6.0)), 0.5)]
    [-1.5, 3.5]
    """
    r, trace = state
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is infinite in the end
        moved = np.asarray(rate) * r
        return State(r - moved * trace + moved**2 * (r + target), trace + moved * (moved * trace - 4.0 * (r + target)))


def descent(state: State, rates: Iterable[Float[ArrayLike, "..."]], target: float = 1.0) -> State:
    """The state after a step at each of the rates."""
    for rate in rates:
        state = after_step(state, rate, target)
    return state


def sharpness(state: State, target: float = 1.0) -> Float[np.ndarray, "..."]:
    """lambda_max of the Hessian g g' + r [[0, I], [I, 0]], g = (v, u): mu = (lambda + sqrt(lambda^2 + 4 r (3 r + 2 y))) / 2.

    g and (u, v) span a space that the Hessian keeps; there mu^2 = lambda mu + r (2 u'v + r). The other eigenvalues are r and -r.

    >>> float(sharpness(State(np.array(0.0), np.array(3.0))))
    3.0
    """
    r, trace = state
    inside = np.maximum(trace**2 + 4.0 * r * (3.0 * r + 2.0 * target), 0.0)
    return np.maximum(0.5 * (trace + np.sqrt(inside)), np.abs(r))
