"""Predictors, and how a loss through them is evaluated for many runs at once.

An evaluation takes lanes (runs in the last axis) and gives the weighted objective and its gradient for each. `PerExample` makes one
from any loss by autodiff. `Linear` writes the same out as two matrix products: reverse-mode autodiff under `vmap` computes the same
numbers, but turns a matrix round in every step (two transposes and four copies in the HLO, 2 to 6 times the time).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from gdjax.records import Lanes, Params


def linear(params: Float[Array, " p"], features: Float[Array, "... p"]) -> Float[Array, "..."]:
    """Predict features @ params; an intercept is a feature that is always 1."""
    return jnp.matmul(features, params, precision="highest")


@dataclass(frozen=True)
class Linear:
    """Evaluate sum_i w_i loss(x_i . params, y_i) + ridge ||params without the intercept||^2 for all lanes.

    The examples are (features, target), the target one for all lanes or a column for each; `constants` holds the loss's own numbers,
    and `ridge` where there is one, each a number or a row of one per lane. Both products take all lanes together, so that lanes which
    see the same examples share them.
    """

    loss: Callable[..., Array]
    intercept: bool = True

    def __call__(
        self, lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[Array, Array], weights: Any
    ) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
        """The weighted objective and its gradient, for every lane."""
        features, target = examples
        target = target[:, None] if target.ndim == 1 else target
        numbers = {name: number for name, number in constants.items() if name != "ridge"}
        predictions = linear(lanes, features)
        losses, slopes = jax.jvp(lambda prediction: self.loss(prediction, target, **numbers), (predictions,), (jnp.ones_like(predictions),))
        if jnp.ndim(weights) == 0:  # one weight for all comes last, as in a mean: the sum overflows where the mean's own does
            value = weights * jnp.sum(losses, axis=0)
            gradient = weights * jnp.matmul(_turned(features, lanes.shape[-1]), slopes, precision="highest")
        else:
            value = weights @ losses
            gradient = jnp.matmul(_turned(features, lanes.shape[-1]), weights[:, None] * slopes, precision="highest")
        if "ridge" in constants:
            penalised = lanes.at[0].set(0.0) if self.intercept else lanes
            ridge = jnp.asarray(constants["ridge"])
            value = value + ridge.reshape(-1 if ridge.size > 1 else ()) * jnp.sum(jnp.square(penalised), axis=0)
            gradient = gradient + 2.0 * ridge * penalised
        return value, gradient


def _turned(features: Float[Array, "rows p"], num_lanes: int) -> Float[Array, "p rows"]:
    """The features' transpose; for a batch and many lanes written out, which the product then reads in order (15 us a step to 10)."""
    small = features.shape[0] <= 1024 and num_lanes >= 8
    return lax.optimization_barrier(features.T) if small else features.T


class Scales(NamedTuple):
    """How columns are standardized: (features - center) / scale, and the target alike."""

    center: Float[Any, " p"]
    scale: Float[Any, " p"]
    target_center: Float[Any, " targets"]
    target_scale: Float[Any, " targets"]


@dataclass(frozen=True)
class Standardized:
    """Evaluate `linear` on standardized examples; `constants` holds their `scales`, so that runs with others share the data."""

    linear: Linear

    def __call__(
        self, lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[Array, Array], weights: Any
    ) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
        """The weighted objective and its gradient, for every lane."""
        features, target = examples
        by: Scales = constants["scales"]
        others = {name: number for name, number in constants.items() if name != "scales"}
        features = (features - by.center[None]) / by.scale[None]
        return self.linear(lanes, others, (features, (target - by.target_center[None]) / by.target_scale[None]), weights)


@dataclass(frozen=True)
class PerExample:
    """Evaluate sum_i w_i loss(params, example_i) for all lanes, the gradient by autodiff."""

    loss: Callable[[Params, Any], Array]

    def __call__(self, lanes: Lanes, constants: dict[str, Any], examples: PyTree, weights: Any) -> tuple[Float[Array, " lanes"], Lanes]:
        """The weighted objective and its gradient, for every lane."""

        def weighted(params: Params) -> Array:
            losses = jax.vmap(lambda example: self.loss(params, example, **constants))(examples)
            return jnp.sum(weights * losses)

        return jax.vmap(jax.value_and_grad(weighted), in_axes=-1, out_axes=(0, -1))(lanes)


def diagonal_quadratic(
    lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[()], weights: Any
) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
    """Evaluate sum_j eigenvalues_j x_j^2 / 2, a quadratic in its own eigenbasis; it is no mean over examples."""
    gradient = constants["eigenvalues"][:, None] * lanes
    return 0.5 * jnp.sum(lanes * gradient, axis=0), gradient


def chain_quadratic(
    lanes: Float[Array, "p lanes"], constants: dict[str, Any], examples: tuple[()], weights: Any
) -> tuple[Float[Array, " lanes"], Float[Array, "p lanes"]]:
    """Evaluate coupling (x'Ax / 2 - x_1) + ridge ||x||^2 / 2, A = tridiag(-1, 2, -1) with `corner` for the last 2; no mean over examples.

    In it coordinates learn from their neighbours alone, a neighbour a step.
    """
    coupling, ridge = constants["coupling"], constants["ridge"]
    along = (2.0 * lanes).at[-1].set(constants["corner"] * lanes[-1]).at[1:].add(-lanes[:-1]).at[:-1].add(-lanes[1:])
    value = coupling * (0.5 * jnp.sum(lanes * along, axis=0) - lanes[0]) + 0.5 * ridge * jnp.sum(jnp.square(lanes), axis=0)
    return value, coupling * along.at[0].add(-1.0) + ridge * lanes
