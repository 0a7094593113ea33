"""Losses of one prediction against one target; every function is pointwise, so arrays of any shape work elementwise.

The mean of a loss over the examples is the objective. The numbers that shape a loss (`delta`) are plain arguments and may be swept.
The negative log-likelihoods keep their constants, so that likelihoods of different noise can be compared.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def squared_error(prediction: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """(prediction - target)^2: the mean of it is the notebook's J, with Hessian (2/n) X'X.

    >>> float(squared_error(3.0, 1.0))
    4.0
    """
    return jnp.square(prediction - target)


def absolute(prediction: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """|prediction - target|; the subgradient at 0 is 0, the one that leaves a point at rest on its target."""
    residual = prediction - target
    return lax.stop_gradient(jnp.sign(residual)) * residual


def huber(prediction: Float[Array, "..."], target: Float[Array, "..."], *, delta: float = 1.0) -> Float[Array, "..."]:
    """r^2 / 2 for |r| <= delta, delta |r| - delta^2 / 2 beyond, with r = prediction - target and delta > 0 (Huber 1964).

    Its curvature in the quadratic zone is half that of `squared_error`, so its stability edge is twice as high.

    >>> float(huber(3.0, 0.0, delta=1.0))
    2.5
    """
    size = jnp.abs(prediction - target)
    inside = jnp.minimum(size, delta)
    return inside * (size - 0.5 * inside)


def bisquare(prediction: Float[Array, "..."], target: Float[Array, "..."], *, cutoff: float = 4.685) -> Float[Array, "..."]:
    """c^2 / 6 (1 - (1 - r^2 / c^2)^3) for |r| <= c = cutoff, the constant c^2 / 6 beyond (Beaton and Tukey 1974); c > 0.

    It is bounded and not convex: descent finds the minimum near its start, and a run that diverges shows in other measures than this.

    >>> float(bisquare(9.0, 0.0, cutoff=3.0))
    1.5
    """
    inside = jnp.minimum(jnp.square((prediction - target) / cutoff), 1.0)
    return jnp.square(cutoff) / 6.0 * (1.0 - (1.0 - inside) ** 3)


def gaussian_nll(prediction: Float[Array, "..."], target: Float[Array, "..."], *, sigma: float = 1.0) -> Float[Array, "..."]:
    """r^2 / (2 sigma^2) + ln sigma + ln(2 pi) / 2: with sigma fixed the mean squared error, stretched and shifted.

    >>> round(float(gaussian_nll(2.0, 0.0, sigma=2.0)), 6)
    2.112086
    """
    return 0.5 * jnp.square((prediction - target) / sigma) + jnp.log(sigma) + 0.5 * math.log(2.0 * math.pi)


def laplace_nll(prediction: Float[Array, "..."], target: Float[Array, "..."], *, scale: float = 1.0) -> Float[Array, "..."]:
    """|r| / scale + ln(2 scale): with the scale fixed the mean absolute error, stretched and shifted."""
    return absolute(prediction, target) / scale + jnp.log(2.0 * scale)


def student_t(
    prediction: Float[Array, "..."], target: Float[Array, "..."], *, degrees: float = 3.0, scale: float = 1.0
) -> Float[Array, "..."]:
    """(nu + 1) / 2 ln(1 + r^2 / (nu s^2)) + ln s + ln B(nu / 2, 1 / 2) + ln(nu) / 2, nu = degrees > 0, s = scale > 0: Student's t.

    Not convex beyond |r| = sqrt(nu) s, from where the pull of an outlier falls off again (Lange, Little and Taylor 1989).

    >>> round(float(student_t(0.0, 0.0, degrees=1.0)), 6)  # the Cauchy density at 0 is 1 / pi
    1.14473
    """
    constant = lax.lgamma(0.5 * degrees) - lax.lgamma(0.5 * (degrees + 1.0)) + 0.5 * jnp.log(math.pi * degrees) + jnp.log(scale)
    return 0.5 * (degrees + 1.0) * jnp.log1p(jnp.square((prediction - target) / scale) / degrees) + constant


def logistic(prediction: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 + exp(-target * prediction)) for target in {-1, +1}; finite for every finite prediction."""
    return jnp.logaddexp(0.0, -target * prediction)
