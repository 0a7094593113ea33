"""Closed forms: what gradient descent must do, from the problem alone.

Every function is pure and takes plain arrays; nothing here has seen a measurement. G = X'X/n, H = 2G is the Hessian of
J = (1/n)||X theta - y||^2, lambda are eigenvalues of H.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from gdjax.records import Problem


class Modes(NamedTuple):
    """A quadratic seen along the eigenvectors of its Hessian: curvatures lambda_i, and the start's error c_i along each."""

    curvatures: Float[np.ndarray, " p"]
    start: Float[np.ndarray, " p"]


def modes(problem: Problem) -> Modes:
    """Take a quadratic apart into its eigenmodes.

    Raises
    ------
    ValueError
        For a problem whose Hessian or minimizer is not known.
    """
    if problem.name == "designed_spectrum":
        return Modes(np.asarray(problem.constants["eigenvalues"]), np.asarray(problem.start) - np.asarray(problem.minimizer))
    if problem.hessian is None or problem.minimizer is None:
        raise ValueError(f"{problem.name} has no known Hessian: its modes can't be taken apart")
    curvatures, vectors = np.linalg.eigh(np.asarray(problem.hessian))
    return Modes(np.maximum(curvatures, 0.0), vectors.T @ (np.asarray(problem.start) - np.asarray(problem.minimizer)))


def gradient_descent(modes: Modes, learning_rate: Float[ArrayLike, " rates"], steps: Int[ArrayLike, " records"]) -> Float[np.ndarray, "rates records"]:
    """The exact suboptimality sum_i lambda_i c_i^2 (1 - eta lambda_i)^(2t) / 2 after t steps of a constant rate, stable or not.

    Polyak (1964); THEORY E01.

    >>> float(gradient_descent(Modes(np.array([2.0]), np.array([3.0])), 0.25, [1])[0, 0])
    2.25
    """
    rates = np.atleast_1d(np.asarray(learning_rate, dtype=float))[:, None, None]
    times = np.atleast_1d(np.asarray(steps))[None, :, None]
    with np.errstate(over="ignore", invalid="ignore"):
        shrunk = np.abs(1.0 - rates * modes.curvatures) ** (2 * times)
        return 0.5 * np.sum(modes.curvatures * modes.start**2 * shrunk, axis=-1)


def stability_edge(smoothness: float) -> float:
    """2 / L: gradient descent with a constant rate converges on a quadratic iff the rate is below it.

    For J = (1/n)||X theta - y||^2 this is 1 / lambda_max(X'X/n); "2 / lambda_max(X'X/n)" is twice too large.
    """
    return 2.0 / smoothness


def optimal_rate(smoothness: float, strong_convexity: float) -> float:
    """2 / (L + mu): the constant rate with the best worst case over starting points (Nesterov 2004, Thm 2.1.15)."""
    return 2.0 / (smoothness + strong_convexity)


def contraction(learning_rate: Float[ArrayLike, "..."], smoothness: float, strong_convexity: float) -> Float[np.ndarray, "..."]:
    """rho = max(|1 - eta mu|, |1 - eta L|), the factor a step on the distance in the end; the suboptimality shrinks by rho^2."""
    rates = np.asarray(learning_rate, dtype=float)
    return np.maximum(np.abs(1.0 - rates * strong_convexity), np.abs(1.0 - rates * smoothness))


def batch_noise_factor(batch_size: int, num_examples: int, *, replacement: bool) -> float:
    """c_B, the variance of a batch's mean over that of one example: 1/B, or (n - B) / (B (n - 1)) without replacement.

    >>> batch_noise_factor(80, 80, replacement=False)
    0.0
    """
    if replacement or num_examples == 1:
        return 1.0 / batch_size
    return (num_examples - batch_size) / (batch_size * (num_examples - 1))


class _Moments(NamedTuple):
    """Least squares in the eigenbasis of G, where S -> GS + SG is a division away from its inverse."""

    X: Float[np.ndarray, "n p"]
    gram: Float[np.ndarray, " p"]  # eigenvalues of G that are not zero
    sides: Float[np.ndarray, " pp"]  # of S -> GS + SG, as a diagonal on vec(S)
    second: Float[np.ndarray, "pp pp"]  # S -> GSG + c_B (mean_i x_i x_i'S x_i x_i' - GSG)


def _moments(X: Float[np.ndarray, "n p"], batch_size: int, replacement: bool) -> _Moments:
    n = len(X)
    gram, vectors = np.linalg.eigh(X.T @ X / n)
    present = gram > gram[-1] * max(X.shape) * np.finfo(float).eps
    X, gram = X @ vectors[:, present], gram[present]
    outer = np.einsum("ni,nj->nij", X, X).reshape(n, -1)
    both = np.diag(np.multiply.outer(gram, gram).ravel())
    noise = batch_noise_factor(batch_size, n, replacement=replacement)
    return _Moments(X, gram, np.add.outer(gram, gram).ravel(), both + noise * (outer.T @ outer / n - both))


def mean_square_edge(X: Float[np.ndarray, "n p"], batch_size: int, *, replacement: bool = False) -> float:
    """The rate below which E||theta - theta*||^2 stays bounded for SGD on least squares, batches drawn anew each step.

    A step maps E ee' by I - gamma A + gamma^2 Q with gamma = 2 eta, A: S -> GS + SG, Q: S -> GSG + c_B (mean_i x_i x_i'S x_i x_i' - GSG).
    That operator keeps the cone of positive matrices, so its radius reaches 1 where gamma Q v = A v: gamma = 1 / lambda_max(A^-1 Q).
    It is 2 / L for B = n only. THEORY E11; the operator has p^4 entries, so p up to about 40.
    """
    moments = _moments(X, batch_size, replacement)
    scale = 1.0 / np.sqrt(moments.sides)
    return float(0.5 / np.linalg.eigvalsh(scale[:, None] * moments.second * scale)[-1])


def noise_floor(
    X: Float[np.ndarray, "n p"], residual: Float[np.ndarray, " n"], learning_rate: float, batch_size: int, *, replacement: bool = False
) -> float:
    """The exact stationary E[J] - J* of constant-step SGD on least squares, batches drawn anew each step; inf past its edge.

    tr(G S) at the fixed point S of the step on E ee', driven by gamma^2 c_B mean_i r_i^2 x_i x_i'. THEORY E11.

    Parameters
    ----------
    residual
        y - X theta* at the minimizer theta*.
    """
    if learning_rate >= mean_square_edge(X, batch_size, replacement=replacement):
        return np.inf
    moments, gamma = _moments(X, batch_size, replacement), 2.0 * learning_rate
    drive = gamma**2 * batch_noise_factor(batch_size, len(X), replacement=replacement) * _drive(moments.X, residual)
    covariance = np.linalg.solve(gamma * np.diag(moments.sides) - gamma**2 * moments.second, drive.ravel())
    return float(moments.gram @ np.diag(covariance.reshape(drive.shape)))


def expected_suboptimality(
    X: Float[np.ndarray, "n p"],
    residual: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " p"],
    learning_rate: float,
    batch_size: int,
    num_steps: int,
    *,
    replacement: bool = False,
) -> Float[np.ndarray, " steps"]:
    """The exact E[J(theta_t)] - J* for t = 0 .. num_steps, of constant-step SGD on least squares, batches drawn anew each step.

    The recursion of m = E e and S = E ee' (THEORY E11): S+ = (I - gamma G) S (I - gamma G) + gamma^2 c_B (mean_i x_i x_i'S x_i x_i' - GSG
    + mean_i r_i^2 x_i x_i' - 2 mean_i r_i (x_i'm) x_i x_i').

    Parameters
    ----------
    residual
        y - X theta* at the minimizer theta*.
    error
        theta_0 - theta*.
    """
    gamma, noise = 2.0 * learning_rate, batch_noise_factor(batch_size, len(X), replacement=replacement)
    G, drive = X.T @ X / len(X), _drive(X, residual)
    shrink = np.eye(len(G)) - gamma * G
    mean, second = error, np.outer(error, error)
    values = [np.sum(G * second)]
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(num_steps):
            weights = np.einsum("ni,ij,nj->n", X, second, X, optimize=True) - 2.0 * residual * (X @ mean)
            spread = (X * weights[:, None]).T @ X / len(X) - G @ second @ G + drive
            mean, second = shrink @ mean, shrink @ second @ shrink + gamma**2 * noise * spread
            values.append(np.sum(G * second))
    return np.asarray(values)


def _drive(X: Float[np.ndarray, "n p"], residual: Float[np.ndarray, " n"]) -> Float[np.ndarray, "p p"]:
    """The noise at the minimizer: mean_i r_i^2 x_i x_i'."""
    return (X * (residual**2)[:, None]).T @ X / len(X)
