"""Steps that find their own length, as their theorems have them.

optax's `dadapt_adamw` and `prodigy` are the versions of these for deep learning, with Adam's averages; its `polyak_sgd` stops where
|grad f|^2 is below 2e-16, and divides by its `scaling` where it says that it multiplies (the gradient is scaled before its norm is
taken); its `schedule_free_sgd` leaves the start out of the average.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gdjax.records import Params


def polyak_step(learning_rate: float = 1.0, minimum: float = 0.0) -> optax.GradientTransformationExtraArgs:
    """x_{t+1} = x_t - learning_rate (f(x_t) - minimum) / |grad f(x_t)|^2 grad f(x_t) (Polyak 1969, with 1).

    With 2, ||x - x*|| shrinks on a quadratic by at least (kappa - 1) / (kappa + 1) a step, with no other knowledge of it than f*.
    """

    def init(params: Params) -> optax.EmptyState:
        return optax.EmptyState()

    def update(
        gradient: Params, state: optax.EmptyState, params: Params = None, *, value: Any, **_: Any
    ) -> tuple[Params, optax.EmptyState]:
        square = _dot(gradient, gradient)
        length = jnp.where(square > 0.0, learning_rate * (value - minimum) / square, 0.0)
        return jax.tree.map(lambda g: -length * g, gradient), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


class AverageState(NamedTuple):
    """x, the average that the theorem speaks of, and z, which takes the steps; the engine's own parameters are y between them."""

    iterate: Params
    fast: Params
    step: Int[Array, ""]


def schedule_free(learning_rate: float, interpolation: float = 0.9) -> optax.GradientTransformation:
    """z <- z - learning_rate grad f(y), x <- x + (z - x) / (t + 2) at t = 0, 1, .., y = (1 - interpolation) z + interpolation x.

    x is the average of all z, the start's too, as in Defazio et al. (2024, Thm 1): with the rate D / (G sqrt T) and any
    interpolation from 0 (Polyak's and Ruppert's average) to 1 (primal averaging), f - f* <= D G / sqrt T after T - 1 steps. The records
    are of x.
    """

    def init(params: Params) -> AverageState:
        return AverageState(params, params, jnp.zeros((), jnp.int32))

    def update(gradient: Params, state: AverageState, params: Params = None) -> tuple[Params, AverageState]:
        fast = jax.tree.map(lambda z, g: z - learning_rate * g, state.fast, gradient)
        iterate = jax.tree.map(lambda x, z: x + (z - x) / (state.step + 2.0), state.iterate, fast)
        updates = jax.tree.map(lambda x, z, y: (1.0 - interpolation) * z + interpolation * x - y, iterate, fast, params)
        return updates, AverageState(iterate, fast, state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


class DistanceState(NamedTuple):
    """The estimate d of the distance to the minimizer, a lower bound of it, and the sums that it comes from."""

    start: Params
    estimate: Float[Array, ""]
    weighted: Params  # sum d g
    squares: Float[Array, ""]  # sum |g|^2, or sum d^2 |g|^2
    credit: Float[Array, ""]  # what the estimate's numerator adds up


def d_adaptation(learning_rate: float = 1.0, estimate: float = 1e-2) -> optax.GradientTransformation:
    """Dual averaging whose rate is an estimate d_k of ||x_0 - x*||: D-Adaptation (Defazio and Mishchenko 2023, Algorithm 1).

    s <- s + d_k g_k, gamma = 1 / sqrt(sum |g|^2), x_{k+1} = x_0 - learning_rate gamma s. With the rate 1 and exact subgradients of a
    convex f, d_{k+1} = max(d_k, (gamma |s|^2 - sum gamma_i d_i^2 |g_i|^2) / (2 |s|)) never exceeds the distance. `estimate` is d_0.
    """

    def init(params: Params) -> DistanceState:
        return _begun(params, estimate)

    def update(gradient: Params, state: DistanceState, params: Params = None) -> tuple[Params, DistanceState]:
        square = _dot(gradient, gradient)
        squares = state.squares + square
        before = _inverse_sqrt(jnp.where(state.squares > 0.0, state.squares, square))
        after = _inverse_sqrt(squares)
        weighted = jax.tree.map(lambda s, g: s + state.estimate * g, state.weighted, gradient)
        credit = state.credit + before * state.estimate**2 * square
        length = jnp.sqrt(_dot(weighted, weighted))
        bound = _over(after * length**2 - credit, 2.0 * length)
        updates = jax.tree.map(lambda x, s, y: x - learning_rate * after * s - y, state.start, weighted, params)
        return updates, DistanceState(state.start, jnp.maximum(state.estimate, bound), weighted, squares, credit)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def prodigy_sgd(learning_rate: float = 1.0, estimate: float = 1e-2, slope: float = 0.0) -> optax.GradientTransformation:
    """Gradient descent whose rate comes from an estimate d_k of ||x_0 - x*||: Prodigy (Mishchenko and Defazio 2023, Algorithm 1).

    eta_k = learning_rate d_k^2 / sqrt(d_k^2 slope^2 + sum d_i^2 |g_i|^2), with `slope` G a bound of |g|, or 0. With exact subgradients of
    a convex f, d_{k+1} = max(d_k, sum eta_i g_i'(x_0 - x_i) / |x_{k+1} - x_0|) never exceeds the distance. `estimate` is d_0.
    """

    def init(params: Params) -> DistanceState:
        return _begun(params, estimate)

    def update(gradient: Params, state: DistanceState, params: Params = None) -> tuple[Params, DistanceState]:
        squares = state.squares + state.estimate**2 * _dot(gradient, gradient)
        rate = learning_rate * state.estimate**2 * _inverse_sqrt(state.estimate**2 * slope**2 + squares)
        moved = jax.tree.map(jnp.subtract, state.start, params)
        credit = state.credit + rate * _dot(gradient, moved)
        weighted = jax.tree.map(lambda s, g: s + rate * g, state.weighted, gradient)  # x_0 - x_{k+1}
        bound = _over(credit, jnp.sqrt(_dot(weighted, weighted)))
        updates = jax.tree.map(lambda g: -rate * g, gradient)
        return updates, DistanceState(state.start, jnp.maximum(state.estimate, bound), weighted, squares, credit)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _begun(params: Params, estimate: Any) -> DistanceState:
    zero = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
    return DistanceState(params, zero + estimate, jax.tree.map(jnp.zeros_like, params), zero, zero)


def _dot(left: Params, right: Params) -> Any:
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def _inverse_sqrt(square: Any) -> Any:
    """1 / sqrt, and 0 where no gradient has come yet."""
    return jnp.where(square > 0.0, 1.0 / jnp.sqrt(jnp.where(square > 0.0, square, 1.0)), 0.0)


def _over(numerator: Any, denominator: Any) -> Any:
    return jnp.where(denominator > 0.0, numerator / jnp.where(denominator > 0.0, denominator, 1.0), 0.0)
