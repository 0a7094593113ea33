"""Quadratics along their eigenvectors: gradient descent is exact there, step by step. lambda are eigenvalues of the Hessian H."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from gdjax.losses import squared_error
from gdjax.records import Problem


class Modes(NamedTuple):
    """A quadratic seen along the eigenvectors of its Hessian: curvatures lambda_i, and the start's error c_i along each."""

    curvatures: Float[np.ndarray, " p"]
    start: Float[np.ndarray, " p"]


def is_least_squares(problem: Problem) -> bool:
    """Whether the problem is J = (1/n) ||X theta - y||^2 on examples (X, y)."""
    return getattr(problem.evaluate, "loss", None) is squared_error and problem.minimizer is not None


def is_quadratic(problem: Problem) -> bool:
    """Whether the problem is a quadratic whose Hessian can be had."""
    return is_least_squares(problem) or "eigenvalues" in problem.constants or problem.hessian is not None


def modes(problem: Problem) -> Modes:
    """Take a quadratic apart into its eigenmodes.

    Raises
    ------
    ValueError
        For a problem that is no quadratic.
    """
    if "eigenvalues" in problem.constants:
        return Modes(np.asarray(problem.constants["eigenvalues"]), np.asarray(problem.start) - np.asarray(problem.minimizer))
    if not is_quadratic(problem):
        raise ValueError(f"{problem.name} is no quadratic: it has no modes")
    curvatures, vectors = eigenvectors(problem)
    return Modes(curvatures, vectors.T @ (np.asarray(problem.start) - np.asarray(problem.minimizer)))


def eigenvectors(problem: Problem) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p p"]]:
    """The eigenvalues of the Hessian, (2/n) X'X of a least-squares problem, ascending, and its eigenvectors as columns."""
    if problem.hessian is None:
        X = np.asarray(problem.data[0])
        hessian = 2.0 * X.T @ X / len(X)
    else:
        hessian = np.asarray(problem.hessian)
    curvatures, vectors = np.linalg.eigh(hessian)
    return np.maximum(curvatures, 0.0), vectors


def gradient_descent(
    modes: Modes, learning_rate: Float[ArrayLike, " rates"], steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, "rates records"]:
    """The exact suboptimality sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 after t steps of a constant rate, stable or not.

    Polyak (1964).

    >>> float(gradient_descent(Modes(np.array([2.0]), np.array([3.0])), 0.25, [1])[0, 0])
    2.25
    """
    rates = np.atleast_1d(np.asarray(learning_rate, dtype=float))[:, None, None]
    times = np.atleast_1d(np.asarray(steps))[None, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        shrunk = np.abs(1.0 - rates * modes.curvatures) ** (2 * times)
        return 0.5 * np.sum(modes.curvatures * modes.start**2 * shrunk, axis=-1)


def gradient_descent_errors(
    modes: Modes, learning_rate: Float[ArrayLike, " rates"], steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, "rates records p"]:
    """What is left of the error along each eigenvector, (1 - eta lambda_i)^t c_i, after t steps of a constant rate, stable or not.

    Polyak (1964).

    >>> gradient_descent_errors(Modes(np.array([2.0, 1.0]), np.array([3.0, 1.0])), 0.75, [2])[0].tolist()
    [[0.75, 0.0625]]
    """
    rates = np.atleast_1d(np.asarray(learning_rate, dtype=float))[:, None, None]
    times = np.atleast_1d(np.asarray(steps))[None, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        return (1.0 - rates * modes.curvatures) ** times * modes.start


def steps_to_tolerance(modes: Modes, learning_rate: float, tolerance: float) -> int:
    """The first step t at which the exact suboptimality is at most `tolerance` times that of the start.

    The rate is below the stability edge, where the suboptimality falls in every step: so t is found by halving, however large it is.

    >>> steps_to_tolerance(Modes(np.array([1.0, 100.0]), np.array([1.0, 0.1])), 2.0 / 101.0, 1e-6)
    346
    """
    start = 0.5 * np.sum(modes.curvatures * modes.start**2)
    low, high = -1, 1  # too few steps, and enough of them
    while gradient_descent(modes, learning_rate, np.array([high]))[0, 0] > tolerance * start:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        reached = gradient_descent(modes, learning_rate, np.array([middle]))[0, 0] <= tolerance * start
        low, high = (low, middle) if reached else (middle, high)
    return high


def steps_at_optimal_rate(condition_number: Float[ArrayLike, "..."], tolerance: float) -> Int[np.ndarray, "..."]:
    """ceil(ln tolerance / (2 ln((kappa - 1) / (kappa + 1)))): so many steps at the rate 2 / (L + mu) are always enough.

    The suboptimality shrinks by at least ((kappa - 1) / (kappa + 1))^2 a step (Nesterov 2004, Thm 2.1.15), and by just that where only
    the modes at L and mu have a share in the start, as with two parameters.

    >>> int(steps_at_optimal_rate(137.65407624759843, 1e-6))  # the notebook's data
    476
    """
    kappa = np.asarray(condition_number, dtype=float)
    with np.errstate(divide="ignore"):
        steps = 0.5 * np.log(tolerance) / np.log1p(-2.0 / (kappa + 1.0))
    return np.maximum(1, np.ceil(steps)).astype(int)


def least_condition_number(X: Float[np.ndarray, "n p"], num_steps: int = 300) -> float:
    """The least condition number of X'X over scales of X's columns, from above: by descent on the logarithms of the scales.

    ln kappa has the slope 2 (u_i^2 - v_i^2) in that of the scale of column i, with u and v the eigenvectors of the largest and the
    smallest eigenvalue. Unit columns are at most p times above the least (van der Sluis 1969).

    >>> X = np.array([[1.0, 100.0], [1.0, -100.0], [0.0, 50.0]])
    >>> round(least_condition_number(X), 6)  # orthogonal columns
    1.0
    """
    gram = X.T @ X / np.outer(np.linalg.norm(X, axis=0), np.linalg.norm(X, axis=0))
    logs, least = np.zeros(len(gram)), np.inf
    for step in range(num_steps):
        scales = np.exp(logs)
        values, vectors = np.linalg.eigh(gram * np.outer(scales, scales))
        least = min(least, float(values[-1] / values[0]))
        logs -= 0.5 / (1.0 + 0.1 * step) * (vectors[:, -1] ** 2 - vectors[:, 0] ** 2)
    return least


def exact_least_squares(X: Float[np.ndarray, "n p"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " p"]:
    """The solution of X'X theta = X'y in rational arithmetic: exact for these very floating-point numbers; NaN where X'X is singular.

    About 2 us for each of n p^2 products, and more for many parameters, whose fractions grow long.

    >>> exact_least_squares(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0, 4.0])) * 6
    array([5., 9.])
    """
    rational = np.vectorize(Fraction, otypes=[object])(np.column_stack([X, y]))
    system = rational[:, :-1].T @ rational
    for pivot in range(len(system)):  # X'X is positive definite, so its pivots are positive in any order
        if system[pivot, pivot] == 0:
            return np.full(X.shape[1], np.nan)
        system[pivot] = system[pivot] / system[pivot, pivot]
        for row in set(range(len(system))) - {pivot}:
            system[row] = system[row] - system[row, pivot] * system[pivot]
    return system[:, -1].astype(float)


def stability_edge(smoothness: Any) -> float:
    """2 / L: gradient descent with a constant rate converges on a quadratic iff the rate is below it.

    For J = (1/n)||X theta - y||^2 this is 1 / lambda_max(X'X/n); "2 / lambda_max(X'X/n)" is twice too large.
    """
    return 2.0 / float(smoothness)


def optimal_rate(smoothness: Any, strong_convexity: Any) -> float:
    """2 / (L + mu): the constant rate with the best worst case over starting points (Nesterov 2004, Thm 2.1.15)."""
    return 2.0 / (float(smoothness) + float(strong_convexity))


def contraction(learning_rate: Float[ArrayLike, "..."], smoothness: float, strong_convexity: float) -> Float[np.ndarray, "..."]:
    """rho = max(|1 - eta mu|, |1 - eta L|), the factor a step on the distance in the end; the suboptimality shrinks by rho^2."""
    rates = np.asarray(learning_rate, dtype=float)
    return np.maximum(np.abs(1.0 - rates * strong_convexity), np.abs(1.0 - rates * smoothness))


def accumulated_gradient(modes: Modes, learning_rate: float, steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, " records"]:
    """The exact suboptimality of x_{t+1} = x_t - eta sum_{s <= t} grad f(x_s): gradients added up and never set to zero.

    It is the heavy ball with momentum 1: along an eigenvector the error is c cos(omega (t + 1/2)) / cos(omega / 2) with
    cos omega = 1 - eta lambda / 2, which neither falls nor grows as long as eta lambda < 4. Beyond, omega is complex and it grows.

    >>> accumulated_gradient(Modes(np.array([1.0]), np.array([1.0])), 1.0, range(5)).round(9).tolist()
    [0.5, 0.0, 0.5, 0.5, 0.0]
    """
    omega = np.arccos(1.0 - 0.5 * learning_rate * modes.curvatures + 0j)
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.cos(omega * (np.asarray(steps)[:, None] + 0.5)) / np.cos(0.5 * omega)
        return 0.5 * np.sum(modes.curvatures * np.abs(modes.start * ratio) ** 2, axis=-1)
