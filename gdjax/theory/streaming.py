"""SGD on fresh inputs u ~ N(0, H) for every step: last iterates, their floor, and averages, exactly.

f(x) = E (u'(x - x*) - noise)^2 / 2 with independent noise of variance sigma^2, so that f - f* = e'He / 2, and a step of rate gamma is
gamma times the mean gradient of B inputs. lambda are H's eigenvalues.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from gdjax.theory.moments import double


def gaussian_gain(eigenvalues: Float[ArrayLike, " d"], learning_rate: Any, batch_size: Any = 1) -> Any:
    """U = sum_i gamma lambda_i / (2B - gamma (B + 1) lambda_i), infinite from where a mode alone is unstable.

    Horowitz and Senne 1981, Feuer and Weinstein 1985, for B = 1.

    >>> round(float(gaussian_gain(1.0 / np.arange(1, 21), 0.2, 8)), 12)
    0.047427927794
    """
    spectrum = np.asarray(eigenvalues, dtype=float)
    gamma, batch = np.asarray(learning_rate, dtype=float)[..., None], np.asarray(batch_size, dtype=float)[..., None]
    left = 2.0 * batch - gamma * (batch + 1.0) * spectrum
    stable = (left > 0).all(axis=-1)
    return np.where(stable, np.sum(gamma * spectrum / np.where(left > 0, left, 1.0), axis=-1), np.inf)


def gaussian_floor(eigenvalues: Float[ArrayLike, " d"], learning_rate: Any, batch_size: Any = 1, *, variance: float = 1.0) -> Any:
    """The stationary E f - f* = sigma^2 U / (2 (1 - U)), infinite where U >= 1.

    >>> round(float(2 * gaussian_floor(1.0 / np.arange(1, 21), 0.05)), 12)
    0.101342572356
    """
    gain = gaussian_gain(eigenvalues, learning_rate, batch_size)
    return np.where(gain < 1.0, 0.5 * variance * gain / np.where(gain < 1.0, 1.0 - gain, 1.0), np.inf)


def gaussian_edge(eigenvalues: Float[ArrayLike, " d"], batch_size: int = 1) -> float:
    """The rate at which U = 1, from where the mean square grows; the mean itself is stable below 2 / L.

    >>> round(gaussian_edge(1.0 / np.arange(1, 21)), 6)
    0.429825
    """
    from scipy.optimize import brentq  # a quarter of a second to import, which every start of the application would take

    alone = 2.0 * batch_size / ((batch_size + 1.0) * np.max(eigenvalues))  # where the top mode alone is unstable, and U infinite

    def over(gamma: float) -> float:
        return 1.0 - 1.0 / float(gaussian_gain(eigenvalues, gamma, batch_size))

    edge: Any = brentq(over, 1e-9 * alone, alone)
    return float(edge)


class Streamed(NamedTuple):
    """E f - f* after 0 .. T steps, of the last iterate and of the mean of all iterates so far."""

    last: Float[Any, "... steps+1"]
    average: Float[Any, "... steps+1"]


@functools.partial(jax.jit, static_argnames="num_steps")
def streamed(
    eigenvalues: Float[Any, " d"],
    error: Float[Any, " d"],
    learning_rate: Float[ArrayLike, ""],
    batch_size: Any = 1,
    variance: float = 1.0,
    *,
    num_steps: int,
) -> Streamed:
    """The recursion of s_i = E e_i^2, and of the correlations c_i(t) = E e_i(t) sum_{j <= t} e_i(j) that the mean of iterates needs.

    s_i+ = (1 - 2 gamma lambda_i + gamma^2 lambda_i^2 (B + 1) / B) s_i + gamma^2 lambda_i (sum_j lambda_j s_j + sigma^2) / B, and c_i+ =
    (1 - gamma lambda_i) c_i + s_i+. For n iterates E ebar_i^2 = n^-2 sum_j s_i(j) (1 + 2 sum_{m=1}^{n-1-j} (1 - gamma lambda_i)^m).
    JAX on plain numbers, d a step; to be vmapped over rates, batch sizes and starts.
    """
    spectrum, begin = jnp.asarray(eigenvalues), jnp.asarray(error) ** 2
    shrink = 1.0 - learning_rate * spectrum
    stays = 1.0 - 2.0 * learning_rate * spectrum + learning_rate**2 * spectrum**2 * (batch_size + 1.0) / batch_size

    def step(state: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], Streamed]:
        square, crossed, summed = state
        out = Streamed(0.5 * jnp.sum(spectrum * square), 0.5 * jnp.sum(spectrum * summed) / number**2)
        after = stays * square + learning_rate**2 * spectrum * (jnp.sum(spectrum * square) + variance) / batch_size
        return (after, shrink * crossed + after, summed + 2.0 * shrink * crossed + after), out

    return lax.scan(step, (begin, begin, begin), jnp.arange(1.0, num_steps + 2))[1]


def streamed_curves(
    eigenvalues: Float[ArrayLike, " d"],
    error: Float[ArrayLike, " d"],
    learning_rate: Float[ArrayLike, " rates"],
    num_steps: int,
    *,
    batch_size: Any = 1,
    variance: float = 1.0,
) -> Streamed:
    """`streamed` for many rates, and a batch size for all or one for each, as one program.

    >>> curves = streamed_curves([1.0], [1.0], [0.5], 1, variance=0.0)
    >>> curves.last[0].tolist(), curves.average[0].tolist()  # E (1 - u^2 / 2)^2 = 1 - 1 + 3 / 4
    ([0.5, 0.375], [0.5, 0.34375])
    """
    rates = np.atleast_1d(np.asarray(learning_rate, dtype=float))
    sizes = np.broadcast_to(np.asarray(batch_size, dtype=float), rates.shape)
    with double():
        given = (np.asarray(eigenvalues, dtype=float), np.asarray(error, dtype=float), rates, sizes, float(variance))
        return Streamed(*(np.asarray(part) for part in _streamed_of_all(*given, num_steps=num_steps)))


@functools.partial(jax.jit, static_argnames="num_steps")
def _streamed_of_all(spectrum: Array, error: Array, rates: Array, sizes: Array, variance: float, *, num_steps: int) -> Streamed:
    one = functools.partial(streamed, num_steps=num_steps)
    return jax.vmap(one, (None, None, 0, 0, None))(spectrum, error, rates, sizes, variance)


def averaging_bound(learning_rate: Any, num_iterates: Any, *, dimension: int, radius: float, distance: float, variance: float = 1.0) -> Any:
    """(1 / 2n) (sigma sqrt(d) / (1 - sqrt(gamma R^2)) + ||e_0|| / sqrt(gamma))^2, a bound on E f - f* of the mean of n iterates.

    Bach and Moulines 2013, Thm 1, for gamma < 1/R^2 and E ||u||^2 u u' <= R^2 H: R^2 = tr H + 2 lambda_max for Gaussian inputs.

    Parameters
    ----------
    radius
        R^2.

    >>> float(averaging_bound(0.25, 2, dimension=4, radius=1.0, distance=1.0))  # (2 / n) (sigma sqrt(d) + R ||e_0||)^2 at 1 / (4 R^2)
    9.0
    """
    gamma = np.asarray(learning_rate, dtype=float)
    start = np.sqrt(variance * dimension) / (1.0 - np.sqrt(gamma * radius)) + distance / np.sqrt(gamma)
    return start**2 / (2.0 * np.asarray(num_iterates, dtype=float))


def averaging_asymptote(eigenvalues: Float[ArrayLike, " d"], learning_rate: Any, num_iterates: Any, *, variance: float = 1.0) -> Any:
    """(sigma^2 d + (d + 1) tr HS) / (2n), what is left of the mean of n iterates in the end, with tr HS = sigma^2 U / (1 - U).

    It is tr(H^-1 C) / (2n) for the covariance C = sigma^2 H + H tr HS + HSH of the gradient's noise at the floor. For small rates it is
    sigma^2 d / (2n), which no estimate betters (Polyak and Juditsky 1992). The start is forgotten faster, as
    ||H^(-1/2) e_0||^2 / (2 gamma^2 n^2) (Defossez and Bach 2015, unconfirmed).

    >>> round(float(averaging_asymptote([1.0, 0.5], 1e-9, 10)), 6)
    0.1
    """
    dimension = np.size(eigenvalues)
    square = 2.0 * gaussian_floor(eigenvalues, learning_rate, variance=variance)
    return 0.5 * (variance * dimension + (dimension + 1.0) * square) / np.asarray(num_iterates, dtype=float)


def heavy_ball_floor(learning_rate: Any, momentum: Any, curvature: Any, variance: float = 1.0) -> Any:
    """lim E x^2 = alpha c (1 + beta) / ((1 - beta) h (2 (1 + beta) - alpha h)) of x+ = x - alpha (h x + noise) + beta (x - x_before).

    Exact for noise of variance c that does not depend on x; infinite from the edge alpha h = 2 (1 + beta) on. Without momentum it is
    the floor of SGD, with it about that at the rate alpha / (1 - beta) (Mandt et al. 2017 to first order; Ziyin et al. 2022).

    >>> round(float(heavy_ball_floor(0.1, 0.9, 0.5)), 12), round(float(heavy_ball_floor(0.1, 0.0, 1.0)) * 2, 12)
    (1.013333333333, 0.105263157895)
    """
    alpha, beta, h = (np.asarray(number, dtype=float) for number in (learning_rate, momentum, curvature))
    left = 2.0 * (1.0 + beta) - alpha * h
    return np.where(left > 0, alpha * variance * (1.0 + beta) / ((1.0 - beta) * h * np.where(left > 0, left, 1.0)), np.inf)
