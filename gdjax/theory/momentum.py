"""Momentum of constant strength on quadratics: the heavy ball and Nesterov's method, exact step by step along each eigenvector.

Along an eigenvector of curvature lambda both are e_{t+1} = s e_t - q e_{t-1} with e_{-1} = e_0, so the roots z of z^2 - s z + q say
all: the heavy ball has s = 1 + beta - alpha lambda and q = beta (Polyak 1964), Nesterov's method s = (1 + beta)(1 - alpha lambda) and
q = beta (1 - alpha lambda). A double root r puts a factor of t beside r^t.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from gdjax.theory.quadratics import Modes

NOTHING = 1e-300
"""Stands for a root that is 0, whose logarithm is asked for."""


class Tuned(NamedTuple):
    """A rate and a momentum chosen for L and mu, and the factor a step on the distance that they end at on quadratics."""

    learning_rate: float
    momentum: float
    contraction: float


def heavy_ball_tuned(smoothness: float, strong_convexity: float) -> Tuned:
    """4 / (sqrt(L) + sqrt(mu))^2 and ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^2: a double root at mu and at L (Polyak 1964).

    The distance falls as t ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^t: the root's factor t makes no difference in the end only.

    >>> [round(number, 9) for number in heavy_ball_tuned(1.0, 0.01)]
    [3.305785124, 0.669421488, 0.818181818]
    """
    high, low = math.sqrt(float(smoothness)), math.sqrt(float(strong_convexity))
    root = (high - low) / (high + low)
    return Tuned(4.0 / (high + low) ** 2, root**2, root)


def nesterov_constant(smoothness: float, strong_convexity: float) -> Tuned:
    """1 / L and (sqrt(kappa) - 1) / (sqrt(kappa) + 1): a double root 1 - 1 / sqrt(kappa) at mu (Nesterov 2004, section 2.2).

    >>> [round(number, 9) for number in nesterov_constant(1.0, 0.01)]
    [1.0, 0.818181818, 0.9]
    """
    high, low = math.sqrt(float(smoothness)), math.sqrt(float(strong_convexity))
    return Tuned(1.0 / float(smoothness), (high - low) / (high + low), 1.0 - low / high)


def nesterov_tuned(smoothness: float, strong_convexity: float) -> Tuned:
    """4 / (3 L + mu) and (sqrt(3 kappa + 1) - 2) / (sqrt(3 kappa + 1) + 2): Nesterov's best on quadratics, 1 - 2 / sqrt(3 kappa + 1).

    Lessard, Recht and Packard (2016), Prop. 1.

    >>> [round(number, 9) for number in nesterov_tuned(1.0, 0.01)]
    [1.328903654, 0.793274726, 0.884721916]
    """
    root = math.sqrt(3.0 * float(smoothness) / float(strong_convexity) + 1.0)
    return Tuned(4.0 / (3.0 * float(smoothness) + float(strong_convexity)), (root - 2.0) / (root + 2.0), 1.0 - 2.0 / root)


def safe_momentum(learning_rate: Float[ArrayLike, "..."], smoothness: float, strong_convexity: float) -> Float[np.ndarray, "..."]:
    """sqrt((1 - alpha mu)(1 - alpha L)), with which the heavy ball converges on every smooth, strongly convex f for alpha <= 1 / L.

    f(x_t) - f* <= (1 - alpha mu)^t (f(x_0) - f*) (Ghadimi, Feyzmahdavian and Johansson 2015, Thm 4).

    >>> float(safe_momentum(0.5, 1.0, 0.0))
    0.7071067811865476
    """
    rates = np.asarray(learning_rate, dtype=float)
    return np.sqrt((1.0 - rates * strong_convexity) * np.maximum(1.0 - rates * smoothness, 0.0))


def heavy_ball_edge(smoothness: float, momentum: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """2 (1 + beta) / L: the heavy ball with 0 <= beta < 1 converges on a quadratic iff its rate is below (Polyak 1964).

    >>> heavy_ball_edge(1.0, [0.0, 0.9]).tolist()
    [2.0, 3.8]
    """
    return 2.0 * (1.0 + np.asarray(momentum, dtype=float)) / float(smoothness)


def heavy_ball(
    modes: Modes, learning_rate: Float[ArrayLike, " settings"], momentum: Float[ArrayLike, " settings"], steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, "settings records"]:
    """The exact suboptimality of x_{t+1} = x_t - alpha grad f(x_t) + beta (x_t - x_{t-1}), x_{-1} = x_0, after t steps.

    A rate and a momentum a setting, stable or not; all settings are one program.

    >>> heavy_ball(Modes(np.array([1.0]), np.array([2.0])), 0.5, 0.25, [0, 1, 2]).round(9).tolist()  # x is 2, 1, 0.25
    [[2.0, 0.5, 0.03125]]
    """
    return _on_host(_heavy_ball, modes, learning_rate, momentum, steps)


def nesterov(
    modes: Modes, learning_rate: Float[ArrayLike, " settings"], momentum: Float[ArrayLike, " settings"], steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, "settings records"]:
    """The exact suboptimality of x_{t+1} = y_t - alpha grad f(y_t), y_{t+1} = x_{t+1} + beta (x_{t+1} - x_t), y_0 = x_0, after t steps.

    >>> nesterov(Modes(np.array([1.0]), np.array([2.0])), 0.5, 0.25, [0, 1, 2]).round(9).tolist()  # x is 2, 1, 0.375
    [[2.0, 0.5, 0.0703125]]
    """
    return _on_host(_nesterov, modes, learning_rate, momentum, steps)


def heavy_ball_contraction(
    curvatures: Float[ArrayLike, " p"], learning_rate: Float[ArrayLike, " settings"], momentum: Float[ArrayLike, " settings"]
) -> Float[np.ndarray, " settings"]:
    """The factor a step on the distance in the end: the largest |z| of any mode. Curvatures that are 0 move nothing and don't count.

    >>> heavy_ball_contraction([0.01, 0.5, 1.0], [1.0, 3.0], [0.0, 0.9]).round(6).tolist()  # sqrt(beta) where all roots are complex
    [0.99, 0.948683]
    """
    with jax.enable_x64(True):
        return np.asarray(_contraction(_heavy_ball_sums, *_settings(curvatures, learning_rate, momentum)))


def nesterov_contraction(
    curvatures: Float[ArrayLike, " p"], learning_rate: Float[ArrayLike, " settings"], momentum: Float[ArrayLike, " settings"]
) -> Float[np.ndarray, " settings"]:
    """The factor a step on the distance in the end, as `heavy_ball_contraction`.

    >>> float(nesterov_contraction([0.01, 0.5, 1.0], 1.0, 9.0 / 11.0)[0].round(6))  # the double root 1 - 1 / sqrt(kappa)
    0.9
    """
    with jax.enable_x64(True):
        return np.asarray(_contraction(_nesterov_sums, *_settings(curvatures, learning_rate, momentum)))


def double_root(root: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """1 + (1 - r) t: what a mode with the double root r has beside r^t, begun at rest.

    At Nesterov's 1 / L and (sqrt(kappa) - 1) / (sqrt(kappa) + 1) it is 1 + b t with b = (1 - mu / L) / r - 1 = 1 - r.

    >>> double_root(0.75, [0, 8]).tolist()
    [1.0, 3.0]
    """
    return 1.0 + (1.0 - root) * np.asarray(steps, dtype=float)


def three_cycle(
    learning_rate: float, momentum: float, slopes: Float[ArrayLike, " 3"], offsets: Float[ArrayLike, " 3"]
) -> Float[np.ndarray, " 3"]:
    """The points x, y, z that the heavy ball goes round in for ever, where f'(u) = slope u + offset holds at each.

    Three linear equations: y = x - alpha f'(x) + beta (x - z), and round (Lessard, Recht and Packard 2016, section 4.6).

    >>> three_cycle(1 / 9, 4 / 9, [25.0, 25.0, 25.0], [0.0, 0.0, -24.0]) * 1225
    array([  792., -2208.,  2592.])
    """
    equations, right = np.zeros((3, 3)), -learning_rate * np.asarray(offsets, dtype=float)
    for here, slope in enumerate(np.asarray(slopes, dtype=float)):
        after, before = (here + 1) % 3, (here - 1) % 3
        equations[here, [after, here, before]] = 1.0, learning_rate * slope - 1.0 - momentum, momentum
    return np.linalg.solve(equations, right)


def _heavy_ball_sums(curvatures: Array, learning_rate: Array, momentum: Array) -> tuple[Array, Array]:
    """s and q of each mode."""
    return 1.0 + momentum - learning_rate * curvatures, jnp.broadcast_to(momentum, curvatures.shape)


def _nesterov_sums(curvatures: Array, learning_rate: Array, momentum: Array) -> tuple[Array, Array]:
    kept = 1.0 - learning_rate * curvatures
    return (1.0 + momentum) * kept, momentum * kept


def _roots(total: Array, product: Array) -> tuple[Array, Array, Array]:
    """The roots of z^2 - total z + product where they are real, the greater first, each without cancellation; and the discriminant."""
    apart = total**2 - 4.0 * product
    first = 0.5 * (total + jnp.where(total < 0.0, -1.0, 1.0) * jnp.sqrt(jnp.maximum(apart, 0.0)))
    return first, product / jnp.where(first == 0.0, 1.0, first), apart


def _two_term(total: Array, product: Array, steps: Array) -> Float[Array, "records p"]:
    """e_t / e_0 from the two roots r, z: of real ones r^t ((1 - z) (1 - (z/r)^t) / (1 - z/r) + (z/r)^t), also where they are equal.

    Of complex ones rho e^(+-i theta): rho^t (sin((t + 1) theta) - rho sin(t theta)) / sin(theta).
    """
    first, second, apart = _roots(total, product)
    t = steps[:, None]
    ratio = jnp.where(first == 0.0, 0.0, second / jnp.where(first == 0.0, 1.0, first))[None]
    kept = _power(ratio, t)
    near = (ratio > 0.5) & (ratio < 1.0)  # where 1 - (z/r)^t would cancel
    logs = jnp.where(near, jnp.log(jnp.where(near, ratio, 0.5)), -1.0)
    summed = jnp.where(near, jnp.expm1(t * logs) / jnp.expm1(logs), (1.0 - kept) / jnp.where(ratio == 1.0, 1.0, 1.0 - ratio))
    real = _power(first[None], t) * ((1.0 - second)[None] * jnp.where(ratio == 1.0, t, summed) + kept)
    size = jnp.sqrt(jnp.maximum(product, 0.0))[None]
    across = jnp.sqrt(jnp.maximum(-apart, 0.0))
    angle = jnp.arctan2(across, total)[None]
    turned = (jnp.sin((t + 1.0) * angle) - size * jnp.sin(t * angle)) / jnp.where(across == 0.0, 1.0, jnp.sin(angle))
    return jnp.where((apart < 0.0)[None], _power(size, t) * turned, real)


def _power(base: Array, t: Array) -> Array:
    """base^t for whole t of either sign of base, 0^0 = 1."""
    size = jnp.exp(t * jnp.log(jnp.where(base == 0.0, NOTHING, jnp.abs(base))))
    return jnp.where((base < 0.0) & (t % 2.0 == 1.0), -size, size)


def _suboptimality(sums: Any, curvatures: Array, start: Array, learning_rate: Array, momentum: Array, steps: Array) -> Array:
    total, product = sums(curvatures, learning_rate, momentum)
    errors = _two_term(total, product, steps)
    return 0.5 * jnp.sum((curvatures * start**2)[None] * errors**2, axis=-1)


_heavy_ball, _nesterov = (
    jax.jit(jax.vmap(functools.partial(_suboptimality, sums), in_axes=(None, None, 0, 0, None)))
    for sums in (_heavy_ball_sums, _nesterov_sums)
)


@functools.partial(jax.jit, static_argnums=0)
def _contraction(sums: Any, curvatures: Array, learning_rate: Array, momentum: Array) -> Array:
    def one(rate: Array, beta: Array) -> Array:
        total, product = sums(curvatures, rate, beta)
        first, _, apart = _roots(total, product)
        size = jnp.where(apart < 0.0, jnp.sqrt(jnp.maximum(product, 0.0)), jnp.abs(first))
        return jnp.max(jnp.where(curvatures > 0.0, size, 0.0))

    return jax.vmap(one)(learning_rate, momentum)


def _settings(curvatures: Any, learning_rate: Any, momentum: Any) -> tuple[Array, Array, Array]:
    rates, momenta = np.broadcast_arrays(np.atleast_1d(np.asarray(learning_rate, float)), np.atleast_1d(np.asarray(momentum, float)))
    return jnp.asarray(np.asarray(curvatures, float)), jnp.asarray(rates), jnp.asarray(momenta)


def _on_host(program: Any, modes: Modes, learning_rate: Any, momentum: Any, steps: Any) -> np.ndarray:
    with jax.enable_x64(True):
        curvatures, rates, momenta = _settings(modes.curvatures, learning_rate, momentum)
        start, times = jnp.asarray(np.asarray(modes.start, float)), jnp.asarray(np.atleast_1d(np.asarray(steps, float)))
        return np.asarray(program(curvatures, start, rates, momenta, times))
