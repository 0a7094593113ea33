"""Closed forms: what gradient descent must do, from the problem alone.

Every function is pure; nothing here has seen a measurement. G = X'X/n, H = 2G is the Hessian of
J = (1/n)||X theta - y||^2, lambda are eigenvalues of H.
"""

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
    return is_least_squares(problem) or "eigenvalues" in problem.constants


def modes(problem: Problem) -> Modes:
    """Take a quadratic apart into its eigenmodes.

    Raises
    ------
    ValueError
        For a problem that is no quadratic.
    """
    if "eigenvalues" in problem.constants:
        return Modes(np.asarray(problem.constants["eigenvalues"]), np.asarray(problem.start) - np.asarray(problem.minimizer))
    if not is_least_squares(problem):
        raise ValueError(f"{problem.name} is no quadratic: it has no modes")
    curvatures, vectors = eigenvectors(problem)
    return Modes(curvatures, vectors.T @ (np.asarray(problem.start) - np.asarray(problem.minimizer)))


def eigenvectors(problem: Problem) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p p"]]:
    """The eigenvalues of H = (2/n) X'X of a least-squares problem, ascending, and its eigenvectors as columns."""
    X = np.asarray(problem.data[0])
    hessian = 2.0 * X.T @ X / len(X) if problem.hessian is None else np.asarray(problem.hessian)
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
