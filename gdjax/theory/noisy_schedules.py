"""The noisy quadratic: independent modes of curvature h with gradient noise of variance c, whose second moments are exact, any schedule.

x_i <- x_i - eta_t (h_i x_i + noise), E noise^2 = c_i, so that v_i = E x_i^2 follows v_i <- (1 - eta_t h_i)^2 v_i + eta_t^2 c_i, and the
risk is sum_i h_i v_i / 2 (Zhang et al. 2019; Ge et al. 2019 for schedules). Where c = h, as at the optimum of a well-specified
regression, no estimate from T gradients has a smaller risk than about d / (2 T).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

FINEST = 3e-3
"""How near, relative to it, the best rate is come to."""


def risk(
    rates: Float[ArrayLike, "runs steps"],
    curvatures: Float[ArrayLike, " d"],
    noise: Float[ArrayLike, " d"],
    start: Float[ArrayLike, " d"],
) -> Float[np.ndarray, " runs"]:
    """E f(x_T) - f* after the steps of each row of rates, begun at second moments `start`; one program for all rows.

    >>> risk([[0.5, 0.5]], [1.0], [0.0], [1.0]).tolist()
    [0.03125]
    """
    with jax.enable_x64(True):
        arguments = (jnp.asarray(array, float) for array in (rates, curvatures, noise, start))
        return np.asarray(_risk(*arguments))


@jax.jit
def _risk(rates: Array, curvatures: Array, noise: Array, start: Array) -> Array:
    def step(moments: Array, rate: Array) -> tuple[Array, None]:
        rate = rate[None, :]
        return (1.0 - rate * curvatures[:, None]) ** 2 * moments + rate**2 * noise[:, None], None

    begun = jnp.broadcast_to(start[:, None], (len(start), len(rates)))
    ended, _ = jax.lax.scan(step, begun, rates.T)
    return 0.5 * curvatures @ ended


def tuned(
    shapes: Float[np.ndarray, "schedules steps"],
    curvatures: Float[ArrayLike, " d"],
    noise: Float[ArrayLike, " d"],
    start: Float[ArrayLike, " d"],
    *,
    num_rates: int = 16,
) -> tuple[Float[np.ndarray, " schedules"], Float[np.ndarray, " schedules"]]:
    """The rate at which each shape ends with the least risk, and that risk.

    A log grid from 1e-5 to 2 times 1 / max h, then finer ones around the best, to `FINEST` of it: the risk is flat there, so that it is
    right to `FINEST` squared.
    """
    low, high = np.full(len(shapes), 1e-5), np.full(len(shapes), 2.0)
    scale, follow = 1.0 / np.max(curvatures), functools.partial(risk, curvatures=curvatures, noise=noise, start=start)
    rows = np.arange(len(shapes))
    while True:
        grid = scale * np.geomspace(low, high, num_rates, axis=1)
        risks = follow((grid[:, :, None] * shapes[:, None, :]).reshape(-1, shapes.shape[1])).reshape(grid.shape)
        best = np.argmin(np.where(np.isfinite(risks), risks, np.inf), axis=1)
        if np.all(high / low < (1.0 + FINEST) ** (num_rates / 2)):
            return grid[rows, best], risks[rows, best]
        low, high = (grid[rows, np.clip(best + side, 0, num_rates - 1)] / scale for side in (-1, 1))
