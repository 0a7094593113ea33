"""Averages over a run, which stand for it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from gdjax.records import Params


class AveragedState(NamedTuple):
    """The mean of x_0 .. x_t, the point that theorems speak of; the engine's own parameters are x_t, where the gradient is taken."""

    iterate: Params
    step: Int[Array, ""]


def averaged_sgd(learning_rate: float) -> optax.GradientTransformation:
    """x_{t+1} = x_t - learning_rate grad f(x_t), reported by the mean of x_0 .. x_t (Ruppert 1988; Polyak and Juditsky 1992).

    On least squares the mean falls as 1/t at a constant rate, where x_t itself stalls at its noise floor. The records are of the mean.
    """

    def init(params: Params) -> AveragedState:
        return AveragedState(params, jnp.zeros((), jnp.int32))

    def update(gradient: Params, state: AveragedState, params: Params) -> tuple[Params, AveragedState]:
        updates = jax.tree.map(lambda g: -learning_rate * g, gradient)
        points = state.step + 2.0
        iterate = jax.tree.map(lambda mean, x, u: mean + (x + u - mean) / points, state.iterate, params, updates)
        return updates, AveragedState(iterate, state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]
