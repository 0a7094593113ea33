"""Exact moments of constant-step SGD on least squares: its mean square edge, its noise floor, its expected curve.

G = X'X/n, H = 2G is the Hessian of J = (1/n)||X theta - y||^2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float

from gdjax.records import Problem
from gdjax.theory.quadratics import eigenvectors, is_least_squares

INDEPENDENT = ("with_replacement", "without_replacement")
"""Samplers that draw every batch anew, of which the moments below hold."""

MOST_PARAMETERS = 40
"""Operators on E ee' have p^4 entries; above this they are not formed."""


def has_moments(problem: Problem, sampler: str) -> bool:
    """Whether the moments of constant-step SGD are known: least squares, batches drawn anew, few enough parameters."""
    return is_least_squares(problem) and sampler in INDEPENDENT and np.size(problem.start) <= MOST_PARAMETERS


def batch_noise_factor(batch_size: int, num_examples: int, *, sampler: str = "without_replacement") -> float:
    """c_B, the variance of a batch's mean over that of one example: 1/B, or (n - B) / (B (n - 1)) without replacement.

    >>> batch_noise_factor(80, 80)
    0.0
    """
    if sampler == "with_replacement" or num_examples == 1:
        return 1.0 / batch_size
    return (num_examples - batch_size) / (batch_size * (num_examples - 1))


class _Moments(NamedTuple):
    """Least squares along the eigenvectors of G = X'X/n whose eigenvalue is not zero."""

    gram: Float[np.ndarray, " q"]  # those eigenvalues
    noise: float  # c_B
    fourth: Float[np.ndarray, "qq qq"]  # S -> mean_i x_i x_i'S x_i x_i', on vec(S)
    third: Float[np.ndarray, "q qq"]  # m -> mean_i r_i (x_i'm) x_i x_i'
    drive: Float[np.ndarray, " qq"]  # mean_i r_i^2 x_i x_i', the noise at the minimizer
    error: Float[np.ndarray, " q"]  # theta_0 - theta*


def _moments(problem: Problem, batch_size: int, sampler: str) -> _Moments:
    X, y = (np.asarray(array) for array in problem.data)
    n = len(X)
    gram, vectors = np.linalg.eigh(X.T @ X / n)
    present = gram > gram[-1] * max(X.shape) * np.finfo(float).eps
    vectors, residual = vectors[:, present], y - X @ np.asarray(problem.minimizer)
    X = X @ vectors
    outer = np.einsum("ni,nj->nij", X, X).reshape(n, -1)
    return _Moments(
        gram=gram[present],
        noise=batch_noise_factor(batch_size, n, sampler=sampler),
        fourth=outer.T @ outer / n,
        third=(X * residual[:, None]).T @ outer / n,
        drive=residual**2 @ outer / n,
        error=vectors.T @ (np.asarray(problem.start) - np.asarray(problem.minimizer)),
    )


def _operators(moments: _Moments) -> tuple[np.ndarray, np.ndarray]:
    """On vec(S): A: S -> GS + SG as a diagonal, and Q: S -> GSG + c_B (mean_i x_i x_i'S x_i x_i' - GSG)."""
    both = np.diag(np.multiply.outer(moments.gram, moments.gram).ravel())
    return np.add.outer(moments.gram, moments.gram).ravel(), both + moments.noise * (moments.fourth - both)


def mean_square_edge(problem: Problem, batch_size: int, *, sampler: str = "without_replacement") -> float:
    """The rate below which E||theta - theta*||^2 stays bounded for SGD on least squares, batches drawn anew each step.

    A step maps E ee' by I - gamma A + gamma^2 Q with gamma = 2 eta, A: S -> GS + SG, Q: S -> GSG + c_B (mean_i x_i x_i'S x_i x_i' - GSG).
    That keeps the cone of positive matrices, so its radius reaches 1 where gamma Q v = A v: gamma = 1 / lambda_max(A^-1 Q). It is 2 / L
    for B = n only (the second-moment recursion of LMS; for Gaussian inputs Feuer and Weinstein 1985).
    """
    sides, second = _operators(_moments(problem, batch_size, sampler))
    scale = 1.0 / np.sqrt(sides)
    return float(0.5 / np.linalg.eigvalsh(scale[:, None] * second * scale)[-1])


def noise_floor(problem: Problem, learning_rate: float, batch_size: int, *, sampler: str = "without_replacement") -> float:
    """The exact stationary E[J] - J* of constant-step SGD on least squares, batches drawn anew each step; inf past its edge.

    tr(G S) at the fixed point S of the step on E ee', driven by gamma^2 c_B mean_i r_i^2 x_i x_i'.
    """
    if learning_rate >= mean_square_edge(problem, batch_size, sampler=sampler):
        return np.inf
    moments, gamma = _moments(problem, batch_size, sampler), 2.0 * learning_rate
    sides, second = _operators(moments)
    covariance = np.linalg.solve(gamma * np.diag(sides) - gamma**2 * second, gamma**2 * moments.noise * moments.drive)
    return float(moments.gram @ np.diag(covariance.reshape(len(moments.gram), -1)))


def expected_suboptimality(
    problem: Problem,
    learning_rate: Float[ArrayLike, " rates"] | Float[ArrayLike, "rates steps"],
    batch_size: int,
    num_steps: int,
    *,
    sampler: str = "without_replacement",
) -> Float[np.ndarray, "rates steps+1"]:
    """The exact E[J(theta_t)] - J* for t = 0 .. num_steps, of SGD on least squares, batches drawn anew each step.

    A row of rates is one for each step, a single number one for all.

    The recursion of m = E e and S = E ee': S+ = (I - gamma G) S (I - gamma G) + gamma^2 c_B (mean_i x_i x_i'S x_i x_i' - GSG
    + mean_i r_i^2 x_i x_i' - 2 mean_i r_i (x_i'm) x_i x_i'). A step costs p^4 for each rate, whatever n is.
    """
    gram, noise, fourth, third, drive, error = _moments(problem, batch_size, sampler)
    rates = np.atleast_1d(np.asarray(learning_rate, dtype=float))
    gammas = 2.0 * (rates[:, None] if rates.ndim == 1 else rates)
    sandwiched = np.multiply.outer(gram, gram).ravel()
    mean, second = np.tile(error, (len(rates), 1)), np.tile(np.outer(error, error).ravel(), (len(rates), 1))
    values = np.empty((len(rates), num_steps + 1))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(num_steps + 1):
            values[:, step] = second[:, :: len(gram) + 1] @ gram
            gamma = gammas[:, [min(step, gammas.shape[1] - 1)]]
            shrink = 1.0 - gamma * gram
            both = (shrink[:, :, None] * shrink[:, None, :]).reshape(len(rates), -1)
            spread = second @ fourth - sandwiched * second + drive - 2.0 * mean @ third
            second = both * second + gamma**2 * noise * spread
            mean = shrink * mean
    return values


def reshuffled_noise(problem: Problem, learning_rate: float, batch_size: int, num_epochs: Float[ArrayLike, "..."] = np.inf) -> Any:
    """E[J] - J* at the end of an epoch of reshuffled batches, begun at the minimizer, to first order in the noise; by default the floor.

    Dealt without return, the gradients g_i = 2 r_i x_i at the minimizer add up to zero over an epoch, and only their order is noise:
    along an eigenvector v an epoch adds sum_p w_p v'g_pi(p), of variance mean_i (v'g_i)^2 n / (n - 1) (sum_p w_p^2 - (sum_p w_p)^2 / n)
    over permutations pi, with w_p = eta (1 - eta lambda)^(m - 1 - k) / B_k for the example at place p, in batch k of m. What is left out is
    that batches differ in curvature too, which matters once the rate comes near the limit of the mean square. Where B divides n and
    eta lambda n / B is small, it is about (eta lambda n / B)^2 / 12 of the floor of independent draws with replacement.
    """
    X, y = (np.asarray(array) for array in problem.data)
    n, num_batches = len(X), -(-len(X) // batch_size)
    curvatures, vectors = eigenvectors(problem)
    kept = curvatures > curvatures[-1] * max(X.shape) * np.finfo(float).eps
    curvatures, vectors = curvatures[kept], vectors[:, kept]
    gradients = -2.0 * (y - X @ np.asarray(problem.minimizer))[:, None] * (X @ vectors)
    batch = np.arange(n) // batch_size
    shrink = 1.0 - learning_rate * curvatures[:, None]
    weights = learning_rate * shrink ** (num_batches - 1 - batch) / np.bincount(batch)[batch]
    order = np.sum(weights**2, axis=1) - np.sum(weights, axis=1) ** 2 / n
    variance = np.mean(gradients**2, axis=0) * n / max(1, n - 1) * order
    epoch = shrink[:, 0] ** (2 * num_batches)
    spent = 1.0 - epoch ** np.asarray(num_epochs, dtype=float)[..., None]
    return 0.5 * np.sum(curvatures * variance * spent / (1.0 - epoch), axis=-1)
