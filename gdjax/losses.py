"""Losses of one prediction against one target; every function is pointwise, so arrays of any shape work elementwise.

The mean of a loss over the examples is the objective. The numbers that shape a loss (`delta`) are plain arguments and may be swept.
"""

from __future__ import annotations

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


def logistic(prediction: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 + exp(-target * prediction)) for target in {-1, +1}; finite for every finite prediction."""
    return jnp.logaddexp(0.0, -target * prediction)
