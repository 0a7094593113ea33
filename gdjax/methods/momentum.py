"""Momentum as the textbooks write it.

optax's `sgd(momentum=...)` is the heavy ball exactly as long as the rate is constant (it accumulates m <- beta m + g and moves by
-eta m, so a changed rate also rescales the remembered steps). Its `nesterov=True` records the extrapolated points y_t, where the
gradient is taken; the textbooks' statements are about x_t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gdjax.records import Params


class HeavyBallState(NamedTuple):
    """x_{t-1}, of which the next step keeps the momentum."""

    previous: Params


def heavy_ball(learning_rate: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """x_{t+1} = x_t - learning_rate grad f(x_t) + momentum (x_t - x_{t-1}), x_{-1} = x_0 (Polyak 1964).

    On a quadratic it is stable iff learning_rate * L < 2 (1 + momentum), for 0 <= momentum < 1.
    """

    def init(params: Params) -> HeavyBallState:
        return HeavyBallState(params)

    def update(gradient: Params, state: HeavyBallState, params: Params) -> tuple[Params, HeavyBallState]:
        updates = jax.tree.map(lambda g, x, z: momentum * (x - z) - learning_rate * g, gradient, params, state.previous)
        return updates, HeavyBallState(params)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


class NesterovState(NamedTuple):
    """x_t, the point that theorems speak of; the engine's own parameters are y_t, where the gradient is taken."""

    iterate: Params
    step: Int[Array, ""]


def _extrapolated(learning_rate: float, momentum: Callable[[Array], Any]) -> optax.GradientTransformation:
    def init(params: Params) -> NesterovState:
        return NesterovState(params, jnp.zeros((), jnp.int32))

    def update(gradient: Params, state: NesterovState, params: Params) -> tuple[Params, NesterovState]:
        iterate = jax.tree.map(lambda y, g: y - learning_rate * g, params, gradient)
        beta = momentum(state.step)
        updates = jax.tree.map(lambda x, z, y: x + beta * (x - z) - y, iterate, state.iterate, params)
        return updates, NesterovState(iterate, state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def nesterov(learning_rate: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """x_{t+1} = y_t - learning_rate grad f(y_t), y_{t+1} = x_{t+1} + momentum (x_{t+1} - x_t), y_0 = x_0.

    With momentum (sqrt(kappa) - 1) / (sqrt(kappa) + 1) and rate 1/L it is the constant scheme of Nesterov (2004, section 2.2). The
    records are of x_t.
    """
    return _extrapolated(learning_rate, lambda _: momentum)


def nesterov_convex(learning_rate: float) -> optax.GradientTransformation:
    """`nesterov` with momentum t / (t + 3) after step t = 0, 1, ..: for convex f, f(x_t) - f* = O(1/t^2). The records are of x_t."""
    return _extrapolated(learning_rate, lambda step: step / (step + 3.0))


class FistaState(NamedTuple):
    """x_t and the weight lambda_{t+1} that the next step's momentum comes from."""

    iterate: Params
    weight: Float[Array, ""]


def fista(learning_rate: float) -> optax.GradientTransformation:
    """`nesterov` with momentum (lambda_t - 1) / lambda_{t+1}, lambda_1 = 1, lambda_{t+1} = (1 + sqrt(1 + 4 lambda_t^2)) / 2.

    The weights that the bound L ||x_0 - x*||^2 / (2 lambda_t^2) is best for (Beck and Teboulle 2009), at rate 1/L and without their
    proximal step. The records are of x_t.
    """

    def init(params: Params) -> FistaState:
        return FistaState(params, jnp.ones((), jax.tree.leaves(params)[0].dtype))

    def update(gradient: Params, state: FistaState, params: Params) -> tuple[Params, FistaState]:
        iterate = jax.tree.map(lambda y, g: y - learning_rate * g, params, gradient)
        weight = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * state.weight**2))
        beta = (state.weight - 1.0) / weight
        updates = jax.tree.map(lambda x, z, y: x + beta * (x - z) - y, iterate, state.iterate, params)
        return updates, FistaState(iterate, weight)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
