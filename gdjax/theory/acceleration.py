"""Nesterov's acceleration: bounds that hold for every f, and what it does on a single curvature with momentum k / (k + 3).

s is the rate, at most 1 / L, and R the distance ||x_0 - x*|| of the start.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int
from scipy.special import eval_gegenbauer, j1

from gdjax.theory.quadratics import Modes


def strongly_convex_bound(
    smoothness: float, strong_convexity: float, start: float, distance: float, steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, " records"]:
    """(1 - 1 / sqrt(kappa))^k (f_0 - f* + mu R^2 / 2) of `momentum.nesterov_constant`, for every smooth, strongly convex f.

    d'Aspremont, Scieur and Taylor (2021), Cor. 4.15; Nesterov (2004), Thm 2.2.3 (unconfirmed), has L for mu.

    >>> strongly_convex_bound(1.0, 0.25, 1.0, 2.0, [0, 2]).tolist()
    [1.5, 0.375]
    """
    factor = 1.0 - np.sqrt(float(strong_convexity) / float(smoothness))
    return factor ** np.asarray(steps) * (start + 0.5 * float(strong_convexity) * distance**2)


def convex_bound(smoothness: float, distance: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """2 L R^2 / (k + 1)^2, for every smooth convex f: FISTA (Beck and Teboulle 2009, Thm 4.4), and momentum k / (k + 3) too.

    Su, Boyd and Candes (2016), Thm 6, for the latter. At the start, k = 0, it says L R^2 / 2 at most, which holds for any f.

    >>> convex_bound(1.0, 1.0, [1, 9]).tolist()
    [0.5, 0.02]
    """
    steps = np.asarray(steps, dtype=float)
    return float(smoothness) * distance**2 * np.where(steps == 0, 0.5, 2.0 / (steps + 1.0) ** 2)


def fista_weights(num_steps: int) -> Float[np.ndarray, " num_steps+1"]:
    """lambda_1 = 1, lambda_{k+1} = (1 + sqrt(1 + 4 lambda_k^2)) / 2, led by lambda_0 = 1 for the start; lambda_k >= (k + 1) / 2.

    >>> fista_weights(3).round(6).tolist()
    [1.0, 1.0, 1.618034, 2.193527]
    """
    weights = np.ones(num_steps + 1)
    for k in range(1, num_steps):
        weights[k + 1] = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * weights[k] ** 2))
    return weights


def fista_bound(smoothness: float, distance: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """L R^2 / (2 lambda_k^2) of FISTA's own weights, for every smooth convex f: sharper than `convex_bound`.

    Beck and Teboulle 2009, proof of Thm 4.4.

    >>> fista_bound(1.0, 1.0, [0, 1, 3]).round(6).tolist()
    [0.5, 0.5, 0.103916]
    """
    steps = np.asarray(steps)
    return 0.5 * float(smoothness) * distance**2 / fista_weights(int(steps.max()))[steps] ** 2


def nesterov_convex(modes: Modes, learning_rate: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """The exact suboptimality after k steps with momentum k / (k + 3), along the eigenmodes of a quadratic.

    >>> nesterov_convex(Modes(np.array([1.0]), np.array([1.0])), 0.5, [0, 1, 2]).round(9).tolist()  # x is 1, 1/2, 1/4
    [0.5, 0.125, 0.03125]
    """
    steps = np.asarray(steps)
    with jax.enable_x64(True):
        columns = (jnp.asarray(np.asarray(column, float)) for column in modes)
        return np.asarray(_nesterov_convex(*columns, learning_rate, jnp.arange(float(steps.max()))))[steps]


def legendre_mode(product: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """x_k / x_0 of one curvature lambda with momentum k / (k + 3), exactly, for 0 < product = s lambda < 1 and k >= 1.

    2 c^(k + 1) P_k'(c) / (k (k + 1)) with c = sqrt(1 - s lambda) and Legendre's P_k, whose derivative is Gegenbauer's C_{k-1}^(3/2)
    (equal to the form with P_k and P_{k+1} of Paquette, van Merrienboer, Paquette and Pedregosa 2021, number unconfirmed).

    >>> legendre_mode(0.5, [1, 2, 3]).round(9).tolist()
    [0.5, 0.25, 0.09375]
    """
    k, c = np.asarray(steps, dtype=int), np.sqrt(1.0 - product)  # whole numbers: scipy then takes the stable recursion
    return 2.0 * c ** (k + 1.0) * eval_gegenbauer(k - 1, 1.5, c) / (k * (k + 1.0))


def bessel_mode(product: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """x_k / x_0 of one curvature lambda, nearly: 2 J_1(w) / w exp(-k s lambda / 2) with w = (k + 1/2) sqrt(s lambda), product = s lambda.

    The solution of the ODE of Su, Boyd and Candes (2016), with the half step and the damping that steps add: it is what the Legendre
    polynomials of `legendre_mode` become for small s lambda. Its error is about s lambda / 4.

    >>> float(np.max(np.abs(bessel_mode(1e-4, range(1, 3001)) - legendre_mode(1e-4, range(1, 3001)))).round(7))
    2.41e-05
    """
    k = np.asarray(steps, dtype=float)
    return _bessel((k + 0.5) * np.sqrt(product)) * np.exp(-0.5 * k * product)


def ode_mode(product: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """2 J_1(w) / w with w = k sqrt(s lambda): the ODE x'' + 3/t x' + lambda x = 0 at t = k sqrt(s) (Su, Boyd and Candes 2016).

    >>> float(np.max(np.abs(ode_mode(1e-4, range(1, 3001)) - legendre_mode(1e-4, range(1, 3001)))).round(5))
    0.00753
    """
    return _bessel(np.asarray(steps, dtype=float) * np.sqrt(product))


def _bessel(w: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.where(w == 0.0, 1.0, 2.0 * j1(w) / np.where(w == 0.0, 1.0, w))


@jax.jit
def _nesterov_convex(curvatures: Array, start: Array, learning_rate: Array, steps: Float[Array, " steps"]) -> Float[Array, " steps+1"]:
    def suboptimality(error: Array) -> Array:
        return 0.5 * jnp.sum(curvatures * error**2)

    def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], Array]:
        before, extrapolated = carry
        error = (1.0 - learning_rate * curvatures) * extrapolated
        return (error, error + k / (k + 3.0) * (error - before)), suboptimality(error)

    return jnp.concatenate([suboptimality(start)[None], lax.scan(step, (start, start), steps)[1]])
