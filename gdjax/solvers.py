"""Exact fits of linear models by other means than gradient descent: the truth that descents are judged by.

Features here are a basis: their columns are orthogonal, with mean square 1 (or 0, where a direction is absent).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from gdjax import losses

NORMAL_CONSISTENT = 1.4826
"""The median of |r| times this estimates the standard deviation of normal noise."""

EFFICIENT_DELTA = 1.345
"""Huber's delta in standard deviations: 95 % efficient under normal noise."""

MOST_REWEIGHTINGS = 500
SMALL = 1e-30
"""A residual so small that slope(r) / r is the loss's curvature at 0."""


def slopes_and_weights(
    loss: Callable[..., Array], residual: Float[Array, " n"], constants: dict[str, Any]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """psi(r), the loss's slope, and w(r) = psi(r) / r, by which weighted least squares has the same gradient."""
    moved = jnp.where(jnp.abs(residual) < SMALL, SMALL, residual)
    slopes = jax.jvp(lambda r: loss(r, jnp.zeros_like(r), **constants), (moved,), (jnp.ones_like(moved),))[1]
    return slopes, slopes / moved


@functools.partial(jax.jit, static_argnames="loss")
def reweighted(
    loss: Callable[..., Array],
    basis: Float[Array, "n p"],
    target: Float[Array, " n"],
    start: Float[Array, " p"],
    constants: dict[str, Any],
    tolerance: float = 0.0,
) -> Float[Array, " p"]:
    """Minimize mean loss(basis z, target) by iteratively reweighted least squares, to round-off or to a relative `tolerance`.

    Each step minimizes a quadratic that touches the objective and lies above it wherever the loss is concave in r^2, as Huber's,
    Student's and the bisquare are: so it never goes up, whatever the start (Huber 1981; Lange, Hunter and Yang 2000). Where the loss
    is not convex the minimum is the one below the start.
    """
    absent = jnp.diag((jnp.sum(jnp.square(basis), axis=0) == 0.0).astype(basis.dtype))

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        z, step, count = state
        least = jnp.maximum(tolerance, 4.0 * jnp.finfo(z.dtype).eps) * jnp.max(jnp.abs(z))
        return (jnp.max(jnp.abs(step)) > least) & (count < MOST_REWEIGHTINGS)

    def improved(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, _, count = state
        slopes, weights = slopes_and_weights(loss, basis @ z - target, constants)
        step = jnp.linalg.solve(basis.T @ (weights[:, None] * basis) + absent, basis.T @ slopes)
        return z - step, step, count + 1

    return jax.lax.while_loop(unfinished, improved, (start, jnp.full_like(start, jnp.inf), jnp.zeros((), jnp.int32)))[0]


def m_estimate(
    loss: Callable[..., Array], basis: Float[Array, "n p"], target: Float[Array, " n"], constants: dict[str, Any]
) -> Float[Array, " p"]:
    """Minimize mean loss(basis z, target) from nearly Huber's estimate, delta = 1.345 x the spread of least squares' residuals.

    Most of the way from any start is behind there, and of a loss that is not convex it is the basin wanted (Huber 1981).
    """
    average = basis.T @ target / len(target)  # least squares, in these coordinates
    delta = jnp.maximum(EFFICIENT_DELTA * spread(basis @ average - target), SMALL)
    begin = reweighted(losses.huber, basis, target, average, {"delta": delta}, 1e-3)
    return reweighted(loss, basis, target, begin, dict(constants))


def curvature(loss: Callable[..., Array], constants: dict[str, Any]) -> Float[Array, ""]:
    """psi'(0), the largest curvature of a loss that is concave in r^2: there psi'(r) <= psi(r) / r <= psi'(0)."""
    return slopes_and_weights(loss, jnp.zeros(1), constants)[1][0]


def spread(residual: Float[ArrayLike, " n"]) -> Float[Array, ""]:
    """The standard deviation of normal residuals, from their median size, which half of them can't move far."""
    return NORMAL_CONSISTENT * jnp.median(jnp.abs(residual))


def least_absolute(basis: Float[np.ndarray, "n p"], target: Float[np.ndarray, " n"]) -> Float[np.ndarray, " p"]:
    """Minimize mean |basis z - target| by its dual linear program: max y'a for basis'a = 0, -1 <= a <= 1 (Koenker and Bassett 1978).

    The multipliers are the fit. It passes through as many examples as it has parameters, and where the program says which, it is
    solved from those to round-off.
    """
    from scipy.optimize import linprog  # half a second to import, which only this loss needs

    present = np.any(basis != 0.0, axis=0)
    columns = basis[:, present]
    program = linprog(-target, A_eq=columns.T, b_eq=np.zeros(columns.shape[1]), bounds=(-1.0, 1.0), method="highs")
    fit = -program.eqlin.marginals
    nearest = np.argsort(np.abs(columns @ fit - target))[: columns.shape[1]]
    through = np.linalg.lstsq(columns[nearest], target[nearest], rcond=None)[0]
    best = min((through, fit), key=lambda z: float(np.mean(np.abs(columns @ z - target))))
    z = np.zeros(basis.shape[1])
    z[present] = best
    return z


def student_t_fit(
    basis: Float[np.ndarray, "n p"], target: Float[np.ndarray, " n"], degrees: float
) -> tuple[Float[np.ndarray, " p"], float]:
    """Fit z and the scale s of Student's t by maximum likelihood: the reweighted step, then s^2 = sum w r^2 / sum w.

    w = (nu + 1) / (nu + r^2 / s^2). It is the EM algorithm with an expanded parameter, which has the same fixed points (Kent, Tyler
    and Vardi 1994).
    """
    z = basis.T @ target / len(target)
    residual = target - basis @ z
    scale = max(NORMAL_CONSISTENT * float(np.median(np.abs(residual))), SMALL)
    for _ in range(MOST_REWEIGHTINGS):
        weights = (degrees + 1.0) / (degrees + np.square(residual / scale))
        step = np.linalg.lstsq(basis.T @ (weights[:, None] * basis), basis.T @ (weights * residual), rcond=None)[0]
        z, before = z + step, scale
        residual = target - basis @ z
        scale = float(np.sqrt(np.sum(weights * residual**2) / np.sum(weights)))
        if np.abs(step).max() <= 1e-15 * np.abs(z).max() and abs(scale - before) <= 1e-15 * scale:
            break
    return z, scale


@functools.partial(jax.jit, static_argnames=("num_steps", "product"))
def conjugate_gradients(
    matrix: Any, error: Float[Array, " p"], num_steps: int, product: Callable[[Any, Array], Array] = jnp.matmul
) -> Float[Array, "steps p"]:
    """The errors x_t - x* of conjugate gradients on f = (x - x*)'H(x - x*) / 2, for t = 0 .. num_steps (Hestenes and Stiefel 1952).

    f(x_t) is the least over x_0 + span{H e_0, .., H^t e_0}, so no method whose steps lie in the span of gradients gets lower. It needs
    products with H alone: `product(matrix, vector)`, where H is not formed. Gradients are made orthogonal to all before them, which in
    exact arithmetic they are: without that, round-off costs steps. Where it has arrived, it stays.

    >>> float(abs(conjugate_gradients(jnp.diag(jnp.array([1.0, 4.0])), jnp.ones(2), 2)[2]).max()) < 1e-6
    True
    """
    gradient = product(matrix, error)
    arrived = jnp.square(jnp.finfo(error.dtype).eps) * jnp.vdot(gradient, gradient)

    def step(state: tuple[Array, Array, Array, Array], count: Array) -> tuple[tuple[Array, Array, Array, Array], Array]:
        error, gradient, direction, before = state
        curved = product(matrix, direction)
        size, square = jnp.vdot(direction, curved), jnp.vdot(gradient, gradient)
        moves = (size > 0.0) & (square > arrived)
        before = before.at[count].set(jnp.where(moves, gradient / jnp.where(moves, jnp.sqrt(square), 1.0), 0.0))
        rate = jnp.where(moves, square / jnp.where(moves, size, 1.0), 0.0)
        after = gradient + rate * curved
        for _ in range(2):  # once leaves what round-off put back
            after = after - before.T @ (before @ after)
        after = jnp.where(moves, after, 0.0)
        kept = jnp.where(moves, jnp.vdot(after, after) / jnp.where(moves, square, 1.0), 0.0)
        error = error + rate * direction
        return (error, after, kept * direction - after, before), error

    start = (error, gradient, -gradient, jnp.zeros((num_steps, error.size), error.dtype))
    _, errors = jax.lax.scan(step, start, jnp.arange(num_steps))
    return jnp.concatenate([error[None], errors])


def max_margin(points: Float[np.ndarray, "n p"]) -> Float[np.ndarray, " p"]:
    """The shortest w with points @ w >= 1: 1 / ||w|| is the largest margin of a line through 0, where `points` are y_i x_i.

    By non-negative least squares on the dual (Lawson and Hanson 1974, section 23.4).

    Raises
    ------
    ValueError
        Where no line through 0 separates the classes.

    >>> max_margin(np.array([[1.0, 1.0], [2.0, -1.0], [3.0, 0.5]])).round(12).tolist()
    [0.666666666667, 0.333333333333]
    """
    from scipy.optimize import nnls

    columns = np.vstack([points.T, np.ones(len(points))])
    aim = np.append(np.zeros(points.shape[1]), 1.0)
    residual = columns @ nnls(columns, aim)[0] - aim
    if np.linalg.norm(residual) <= 1e-10:
        raise ValueError("the points can't be separated by a line through 0")
    return -residual[:-1] / residual[-1]
