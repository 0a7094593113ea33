"""Methods whose numbers are chosen for the best worst case: over smooth convex functions, or over quadratics of a known spectrum."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gdjax.records import Params


class OptimizedState(NamedTuple):
    """y_t, where a step from x_{t-1} of gradient descent ends, and theta_t of the recursion."""

    stepped: Params
    theta: Float[Array, ""]
    step: Int[Array, ""]


def ogm(learning_rate: float, horizon: float = 100.0) -> optax.GradientTransformation:
    """The optimized gradient method OGM2 (Kim and Fessler 2016): of all first-order methods the best after N = horizon steps.

    y_{t+1} = x_t - learning_rate grad f(x_t), x_{t+1} = y_{t+1} + (theta_t - 1) / theta_{t+1} (y_{t+1} - y_t)
    + theta_t / theta_{t+1} (y_{t+1} - x_t), with theta_0 = 1, theta_{t+1} = (1 + sqrt(1 + 4 theta_t^2)) / 2, but 8 for 4 in the last
    step, to theta_N. For convex f and rate 1/L, f(x_N) - f* <= L R^2 / (2 theta_N^2), about L R^2 / N^2. That is said of x_N alone;
    before, and beyond it with 4, the recursion is what an unknown horizon would have.
    """

    def init(params: Params) -> OptimizedState:
        return OptimizedState(params, jnp.ones((), jax.tree.leaves(params)[0].dtype), jnp.zeros((), jnp.int32))

    def update(gradient: Params, state: OptimizedState, params: Params) -> tuple[Params, OptimizedState]:
        theta, after = state.theta, _next_theta(state.theta)
        used = jnp.where(state.step + 1 == horizon, _next_theta(theta, 8.0), after)
        stepped = jax.tree.map(lambda x, g: x - learning_rate * g, params, gradient)
        updates = jax.tree.map(
            lambda z, y, x: z - x + (theta - 1.0) / used * (z - y) + theta / used * (z - x), stepped, state.stepped, params
        )
        return updates, OptimizedState(stepped, after, state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _next_theta(theta: Array, factor: float = 4.0) -> Array:
    return 0.5 * (1.0 + jnp.sqrt(1.0 + factor * jnp.square(theta)))


class ThreeTermState(NamedTuple):
    """x_{t-1}, of which the next step keeps a share that changes with t."""

    previous: Params
    step: Int[Array, ""]


def _three_term(learning_rate: Any, numbers: Any) -> optax.GradientTransformation:
    """x_{t+1} = x_t - learning_rate a_t grad f(x_t) + b_t (x_t - x_{t-1}), x_{-1} = x_0, (a_t, b_t) = numbers(t)."""

    def init(params: Params) -> ThreeTermState:
        return ThreeTermState(params, jnp.zeros((), jnp.int32))

    def update(gradient: Params, state: ThreeTermState, params: Params) -> tuple[Params, ThreeTermState]:
        along, kept = numbers(state.step)
        updates = jax.tree.map(lambda g, x, z: kept * (x - z) - learning_rate * along * g, gradient, params, state.previous)
        return updates, ThreeTermState(params, state.step + 1)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def chebyshev(learning_rate: float, condition_number: float = 100.0) -> optax.GradientTransformation:
    """Chebyshev's semi-iteration for quadratics (Golub and Varga 1961): at every step the best worst case over spectra in [mu, L].

    With learning_rate = 2 / (L + mu), r = (sqrt(kappa) - 1) / (sqrt(kappa) + 1) and omega_t = (1 + r^2) (1 + r^(2t)) / (1 + r^(2t+2)),
    omega_0 = 1: x_{t+1} = x_t - learning_rate omega_t grad f(x_t) + (omega_t - 1) (x_t - x_{t-1}). Its error is
    T_t((L + mu - 2 H) / (L - mu)) / T_t((kappa + 1) / (kappa - 1)) of the start's. With kappa = 1 it is gradient descent.
    """
    root = jnp.sqrt(condition_number)
    square = jnp.square((root - 1.0) / (root + 1.0))

    def numbers(step: Array) -> tuple[Array, Array]:
        power = square**step
        omega = jnp.where(step == 0, 1.0, (1.0 + square) * (1.0 + power) / (1.0 + square * power))
        return omega, omega - 1.0

    return _three_term(learning_rate, numbers)


def nu_method(learning_rate: float, nu: float = 2.0) -> optax.GradientTransformation:
    """The nu-method (Brakhage 1987) for quadratics: Chebyshev's idea where no mu is known, by Jacobi's polynomials on [0, L].

    With k = t + 1 and learning_rate = 1/L: x_k = x_{k-1} + b_k (x_{k-1} - x_{k-2}) - learning_rate a_k grad f(x_{k-1}),
    b_k = (k - 1) (2k - 3) (2k + 2 nu - 1) / ((k + 2 nu - 1) (2k + 4 nu - 1) (2k + 2 nu - 3)),
    a_k = 4 (2k + 2 nu - 1) (k + nu - 1) / ((k + 2 nu - 1) (2k + 4 nu - 1)). Its residual polynomial is
    P_t^(2 nu - 1/2, -1/2)(1 - 2 H / L), normalised to 1 at 0 (Engl, Hanke and Neubauer 1996, section 6.3; unconfirmed).
    """

    def numbers(step: Array) -> tuple[Array, Array]:
        k = step + 1.0
        below = (k + 2.0 * nu - 1.0) * (2.0 * k + 4.0 * nu - 1.0)
        along = 4.0 * (2.0 * k + 2.0 * nu - 1.0) * (k + nu - 1.0) / below
        return along, (k - 1.0) * (2.0 * k - 3.0) * (2.0 * k + 2.0 * nu - 1.0) / (below * (2.0 * k + 2.0 * nu - 3.0))

    return _three_term(learning_rate, numbers)
