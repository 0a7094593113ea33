"""Gradient descent whose steps differ in length: planned ahead, or to the minimum along the gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Int

from gdjax.records import Params

SILVER_RATIO = 2.0**0.5 + 1.0


def silver(learning_rate: float) -> optax.GradientTransformation:
    """x_{t+1} = x_t - learning_rate h_{t+1} grad f(x_t), h_i = 1 + rho^(v(i) - 1), rho = 1 + sqrt(2), 2^v(i) the power of 2 in i.

    The silver steps sqrt(2), 2, sqrt(2), 2 + sqrt(2), .. (Altschuler and Parrilo 2023), in units of learning_rate = 1/L: single steps
    far beyond 2/L, which the steps around them make good. For convex f, f(x_t) - f* = O(t^-1.2716) at t = 2^k - 1; in between it may
    be above its start.
    """

    def length(step: Array) -> Array:
        i = step + 1
        power = lax.population_count((i & -i) - 1)
        return learning_rate * (1.0 + SILVER_RATIO ** (power - 1.0))

    return optax.sgd(length)  # pyright: ignore[reportArgumentType]  (a schedule gives an Array)


class LineSearchState(NamedTuple):
    """x, where a line search begins, and its gradient there; the engine's own parameters are a probe of the line at odd steps."""

    iterate: Params
    gradient: Params
    step: Int[Array, ""]


def steepest_descent(learning_rate: float) -> optax.GradientTransformation:
    """x+ = x - a g with g = grad f(x) and a = g'g / g'Hg, the minimum along the gradient (Cauchy 1847), in two steps.

    The first only looks: on a quadratic the gradient at x - learning_rate g says g'Hg = g'(g - grad f(x - learning_rate g)) /
    learning_rate, whatever learning_rate is. The second arrives. Records are of x, which odd steps leave where it was. Where f is no
    quadratic, or steps see different examples, it is a secant's step; where f does not bend upward along g, a step of learning_rate.
    """

    def init(params: Params) -> LineSearchState:
        return LineSearchState(params, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def update(gradient: Params, state: LineSearchState, params: Params) -> tuple[Params, LineSearchState]:
        arriving = state.step % 2 == 1
        base = jax.tree.map(lambda old, new: jnp.where(arriving, old, new), state.gradient, gradient)
        fallen = _dot(base, base) - _dot(base, gradient)
        bends = arriving & (fallen > 0.0)
        length = learning_rate * jnp.where(bends, _dot(base, base) / jnp.where(bends, fallen, 1.0), 1.0)
        arrived = jax.tree.map(lambda x, g: x - length * g, state.iterate, base)
        updates = jax.tree.map(lambda new, old: new - old, arrived, params)
        iterate = jax.tree.map(lambda new, old: jnp.where(arriving, new, old), arrived, state.iterate)
        return updates, LineSearchState(iterate, base, state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _dot(one: Params, other: Params) -> Array:
    return sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))  # pyright: ignore[reportReturnType]
