"""Steps of learning_rate / t: the mean square under independent noise, and how slow a wrong constant is."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float
from scipy.special import gammaln

from gdjax.theory.moments import double


def inverse_time_square(
    learning_rate: Float[ArrayLike, " rates"], num_steps: int, *, start: float = 1.0, variance: float = 1.0
) -> Float[np.ndarray, "rates steps+1"]:
    """E x_t^2 of x_t = x_{t-1} - (c / t)(x_{t-1} + noise) after 0 .. num_steps steps, exactly, whatever the noise's law is.

    v_t = (1 - c/t)^2 v_{t-1} + (c/t)^2 sigma^2, for curvature 1: c = learning_rate * curvature. All rates are one program.

    >>> [round(float(v), 9) for v in inverse_time_square([1.0, 2.0], 10)[:, 10]]
    [0.1, 0.140740741]
    """
    with double():
        rates = jnp.atleast_1d(jnp.asarray(learning_rate, float))
        return np.asarray(_squares(rates, start, variance, num_steps=num_steps))


@functools.partial(jax.jit, static_argnames="num_steps")
def _squares(rates: Array, start: float, variance: float, *, num_steps: int) -> Array:
    def step(square: Array, time: Array) -> tuple[Array, Array]:
        size = rates / time
        after = (1.0 - size) ** 2 * square + size**2 * variance
        return after, after

    begin = jnp.full_like(rates, start)
    _, squares = lax.scan(step, begin, jnp.arange(1.0, num_steps + 1))
    return jnp.concatenate([begin[None], squares]).T


def inverse_time_limit(learning_rate: Any, variance: float = 1.0) -> Any:
    """lim t E x_t^2 = c^2 sigma^2 / (2c - 1) for 2c > 1, infinite at or below; least at c = 1, where it is sigma^2.

    Chung 1954; the bound of Bottou, Curtis and Nocedal 2018, Thm 4.7, has this constant's form.

    >>> float(inverse_time_limit(1.0)), round(float(inverse_time_limit(2.0)), 6)
    (1.0, 1.333333)
    """
    c = np.asarray(learning_rate, dtype=float)
    with np.errstate(divide="ignore"):
        return np.where(2.0 * c > 1.0, c**2 * variance / np.abs(2.0 * c - 1.0), np.inf)


def inverse_time_exponent(learning_rate: Any) -> Any:
    """The power of t that E x_t^2 falls by in the end: -min(1, 2c), with a factor ln t at 2c = 1 (Chung 1954).

    >>> float(inverse_time_exponent(0.3))
    -0.6
    """
    return -np.minimum(1.0, 2.0 * np.asarray(learning_rate, dtype=float))


def inverse_time_noiseless(product: float, steps: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """x_t / x_0 = prod_{s <= t} (1 - c h / s) = Gamma(t + 1 - c h) / (Gamma(1 - c h) Gamma(t + 1)) for f = h x^2 / 2, no noise, c h < 1.

    About t^(-c h) / Gamma(1 - c h). With c h = 0.2 it is the example of Nemirovski et al. 2009, section 2.1 (unconfirmed), whose x_N is
    x after N - 1 steps.

    >>> round(float(inverse_time_noiseless(0.2, 999)), 12), round(float(inverse_time_noiseless(0.2, 1e9 - 1)), 6)
    (0.215781122635, 0.013613)
    """
    times = np.asarray(steps, dtype=float)
    late = times > 1e6  # there differences of log-gamma lose digits, and Stirling's ratio has them
    ratio = gammaln(np.where(late, 1.0, times) + 1.0 - product) - gammaln(np.where(late, 1.0, times) + 1.0)
    # Gamma(z + a) / Gamma(z) ~ z^a (1 + a (a - 1) / (2 z)) at z = t + 1, a = -c h
    stirling = -product * np.log(times + 1.0) + np.log1p(product * (product + 1.0) / (2.0 * (times + 1.0)))
    return np.exp(np.where(late, stirling, ratio) - gammaln(1.0 - product))
