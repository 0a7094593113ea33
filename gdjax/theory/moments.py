"""Exact moments of SGD on least squares, batches drawn anew each step: its mean square edge, its noise floor, its expected curve.

G = X'X/n, H = 2G is the Hessian of J = (1/n)||X theta - y||^2. The functions of a `Problem` work on the host and take arrays of
rates and batch sizes; below them `curve`, `resonances` and `stationary` are JAX on plain arrays, to be jitted and vmapped: a predicted
sweep of 10,000 settings is one program.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from gdjax.records import Problem
from gdjax.theory.quadratics import is_least_squares

INDEPENDENT = ("with_replacement", "without_replacement")
"""Samplers that draw every batch anew, of which the moments below hold."""

MOST_PARAMETERS = 40
"""Operators on E ee' have p^4 entries; above this they are not formed."""


def has_moments(problem: Problem, sampler: str) -> bool:
    """Whether the moments of constant-step SGD are known: least squares, batches drawn anew, few enough parameters."""
    return is_least_squares(problem) and sampler in INDEPENDENT and np.size(problem.start) <= MOST_PARAMETERS


def batch_noise_factor(batch_size: Any, num_examples: int, *, sampler: str = "without_replacement") -> Any:
    """c_B, the variance of a batch's mean over that of one example: 1/B, or (n - B) / (B (n - 1)) without replacement.

    >>> batch_noise_factor(80, 80)
    0.0
    """
    if sampler == "with_replacement" or num_examples == 1:
        return 1.0 / batch_size
    return (num_examples - batch_size) / (batch_size * (num_examples - 1))


class Moments(NamedTuple):
    """Least squares along the eigenvectors of G = X'X/n whose eigenvalue is not zero; vec(S) runs over q x q entries."""

    gram: Float[Any, " q"]  # those eigenvalues
    fourth: Float[Any, "qq qq"]  # S -> mean_i x_i x_i'S x_i x_i', on vec(S)
    third: Float[Any, "q qq"]  # m -> mean_i r_i (x_i'm) x_i x_i'
    drive: Float[Any, " qq"]  # mean_i r_i^2 x_i x_i', the noise at the minimizer
    error: Float[Any, " q"]  # theta_0 - theta*


def of_examples(
    X: Float[np.ndarray, "n p"],
    residual: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " p"],
    probabilities: Float[np.ndarray, " n"] | None = None,
) -> Moments:
    """The moments of rows X with residuals at the minimizer, from an error at the start.

    Parameters
    ----------
    probabilities
        Of the rows, where they are not drawn alike: every mean over examples is weighted by them.
    """
    weights = np.full(len(X), 1.0 / len(X)) if probabilities is None else probabilities
    gram, vectors = np.linalg.eigh((X.T * weights) @ X)
    present = gram > gram[-1] * max(X.shape) * np.finfo(float).eps
    vectors = vectors[:, present]
    X = X @ vectors
    outer = np.einsum("ni,nj->nij", X, X).reshape(len(X), -1)
    return Moments(
        gram=gram[present],
        fourth=(outer.T * weights) @ outer,
        third=(X.T * (weights * residual)) @ outer,
        drive=(weights * residual**2) @ outer,
        error=vectors.T @ error,
    )


def of_problem(problem: Problem) -> Moments:
    """The moments of a least-squares problem."""
    X, y = (np.asarray(array) for array in problem.data)
    minimizer = np.asarray(problem.minimizer)
    return of_examples(X, y - X @ minimizer, np.asarray(problem.start) - minimizer)


@functools.partial(jax.jit, static_argnames="num_steps")
def curve(
    moments: Moments,
    gamma: Float[Any, "..."],
    noise: Float[ArrayLike, ""],
    weights: Float[ArrayLike, " q"],
    *,
    num_steps: int,
) -> Float[Array, " steps+1"]:
    """E sum_i weights_i e_i^2 after 0 .. num_steps steps e+ = (I - gamma G_B) e + gamma g_B, from one error at the start.

    The recursion of m = E e and S = E ee': S+ = (I - gamma G) S (I - gamma G) + gamma^2 c_B (mean_i x_i x_i'S x_i x_i' - GSG
    + mean_i r_i^2 x_i x_i' - 2 mean_i r_i (x_i'm) x_i x_i'). A step costs q^4, whatever n is.

    Parameters
    ----------
    gamma
        The step, of the loss (x'theta - y)^2 / 2: twice the learning rate of J. One number, or one for each step.
    noise
        c_B.
    weights
        G's eigenvalues for E J - J*, ones for E||theta - theta*||^2.
    """
    gram, fourth, third, drive, error = map(jnp.asarray, moments)
    sandwiched = jnp.outer(gram, gram).ravel()
    squares = slice(None, None, len(gram) + 1)
    constant = jnp.ndim(gamma) == 0

    def step(state: tuple[Array, Array], own: Array | None) -> tuple[tuple[Array, Array], Array]:
        mean, second = state
        rate = gamma if own is None else own
        shrink = 1.0 - rate * gram
        spread = jnp.matmul(second, fourth, precision="highest") - sandwiched * second + drive - 2.0 * mean @ third
        after = jnp.outer(shrink, shrink).ravel() * second + rate**2 * noise * spread
        return (shrink * mean, after), second[squares] @ weights

    begin = (error, jnp.outer(error, error).ravel())
    (_, last), values = lax.scan(step, begin, None if constant else gamma, length=num_steps if constant else None)
    return jnp.append(values, last[squares] @ weights)


class Resonances(NamedTuple):
    """A^-1/2 Q A^-1/2 by its eigenvalues, with the share of each in the floor; the rate 1 / (2 curvatures[-1]) is the edge."""

    curvatures: Float[Array, " qq"]
    shares: Float[Array, " qq"]


@jax.jit
def resonances(moments: Moments, noise: Float[ArrayLike, ""]) -> Resonances:
    """Diagonalise a step's effect on E ee' for a batch of noise factor c_B, whatever the rate is.

    A step maps S = E ee' by I - gamma A + gamma^2 Q with A: S -> GS + SG and Q: S -> GSG + c_B (mean_i x_i x_i'S x_i x_i' - GSG), and
    adds gamma^2 c_B D, D = mean_i r_i^2 x_i x_i'. Both are symmetric on vec(S), so that A^-1/2 Q A^-1/2 = V mu V' gives all rates at
    once: the fixed point is gamma c_B (A - gamma Q)^-1 D.
    """
    gram, fourth, _, drive, _ = map(jnp.asarray, moments)
    both = jnp.diag(jnp.outer(gram, gram).ravel())
    scale = lax.rsqrt(jnp.add.outer(gram, gram).ravel())
    curvatures, vectors = jnp.linalg.eigh(scale[:, None] * (both + noise * (fourth - both)) * scale[None, :])
    suboptimality = jnp.diag(gram).ravel()  # tr(GS) as a sum over vec(S)
    return Resonances(curvatures, ((scale * suboptimality) @ vectors) * ((scale * drive) @ vectors))


@jax.jit
def stationary(known: Resonances, gamma: Float[ArrayLike, ""], noise: Float[ArrayLike, ""]) -> Float[Array, ""]:
    """tr(GS) at the fixed point, gamma c_B sum_k shares_k / (1 - gamma curvatures_k); inf from the edge on."""
    bounded = gamma * known.curvatures[-1] < 1.0
    left = 1.0 - jnp.where(bounded, gamma, 0.0) * known.curvatures
    return jnp.where(bounded, gamma * noise * jnp.sum(known.shares / left), jnp.inf)


def mean_square_edge(problem: Problem, batch_size: Any, *, sampler: str = "without_replacement") -> Any:
    """The rate below which E||theta - theta*||^2 stays bounded for SGD on least squares, batches drawn anew each step.

    A step maps E ee' by I - gamma A + gamma^2 Q with gamma = 2 eta, A: S -> GS + SG, Q: S -> GSG + c_B (mean_i x_i x_i'S x_i x_i' - GSG).
    That keeps the cone of positive matrices, so its radius reaches 1 where gamma Q v = A v: gamma = 1 / lambda_max(A^-1 Q). It is 2 / L
    for B = n only (the second-moment recursion of LMS; for Gaussian inputs Feuer and Weinstein 1985).

    Parameters
    ----------
    batch_size
        One, or an array of them, for which an array comes back.
    """
    known, which, _ = _resonances(problem, batch_size, sampler)
    return _plain(0.5 / np.asarray(known.curvatures)[which, -1])


def noise_floor(problem: Problem, learning_rate: Any, batch_size: Any, *, sampler: str = "without_replacement") -> Any:
    """The exact stationary E[J] - J* of constant-step SGD on least squares, batches drawn anew each step; inf past its edge.

    tr(G S) at the fixed point S of the step on E ee', driven by gamma^2 c_B mean_i r_i^2 x_i x_i'. Rates and batch sizes may be arrays,
    which broadcast: all of them are one program.
    """
    rates, sizes = np.broadcast_arrays(np.asarray(learning_rate, dtype=float), np.asarray(batch_size))
    known, which, noise = _resonances(problem, sizes, sampler)
    with double():
        floors = _stationary_of_all(known, which.ravel(), 2.0 * rates.ravel(), noise.ravel())
        return _plain(np.asarray(floors).reshape(rates.shape))


@jax.jit
def _stationary_of_all(known: Resonances, which: Array, gamma: Array, noise: Array) -> Array:
    return jax.vmap(lambda k, g, c: stationary(Resonances(*(field[k] for field in known)), g, c))(which, gamma, noise)


def expected_suboptimality(
    problem: Problem,
    learning_rate: Float[ArrayLike, " rates"] | Float[ArrayLike, "rates steps"],
    batch_size: Any,
    num_steps: int,
    *,
    sampler: str = "without_replacement",
) -> Float[np.ndarray, "rates steps+1"]:
    """The exact E[J(theta_t)] - J* for t = 0 .. num_steps, of SGD on least squares, batches drawn anew each step, by `curve`.

    A row of rates is one for each step, a single number one for all; a batch size is one for all rates, or one for each. All are one
    program.
    """
    rates = np.atleast_1d(np.asarray(learning_rate, dtype=float))
    if rates.ndim > 1:  # the last rate of a row goes on
        rates = rates[:, np.minimum(np.arange(num_steps), rates.shape[1] - 1)]
    sizes = np.broadcast_to(np.asarray(batch_size), rates.shape[:1])
    noise = np.asarray(batch_noise_factor(sizes, problem.num_examples, sampler=sampler), dtype=float)
    moments = of_problem(problem)
    return curves(moments, 2.0 * rates, noise, moments.gram, num_steps=num_steps)


def curves(
    moments: Moments,
    gamma: Float[ArrayLike, " settings"] | Float[ArrayLike, "settings steps"],
    noise: Float[ArrayLike, "..."],
    weights: Float[ArrayLike, " q"],
    *,
    num_steps: int,
) -> Float[np.ndarray, "settings steps+1"]:
    """`curve` for many steps, or rows of them, and a noise factor for all or one for each, as one program."""
    steps = np.atleast_1d(np.asarray(gamma, dtype=float))
    with double():
        return np.asarray(_curves(moments, steps, np.broadcast_to(noise, steps.shape[:1]), np.asarray(weights), num_steps=num_steps))


@functools.partial(jax.jit, static_argnames="num_steps")
def _curves(moments: Moments, gamma: Array, noise: Array, weights: Array, *, num_steps: int) -> Array:
    return jax.vmap(functools.partial(curve, num_steps=num_steps), (None, 0, 0, None))(moments, gamma, noise, weights)


def _resonances(problem: Problem, batch_size: Any, sampler: str) -> tuple[Resonances, np.ndarray, np.ndarray]:
    """The resonances of each different noise factor, which of them each batch size has, and the factor of each."""
    sizes = np.asarray(batch_size)
    noise = np.broadcast_to(np.asarray(batch_noise_factor(sizes, problem.num_examples, sampler=sampler), dtype=float), sizes.shape)
    different, which = np.unique(noise, return_inverse=True)
    with double():
        known = _resonances_of_all(of_problem(problem), different)
    return known, which.reshape(sizes.shape), noise


_resonances_of_all = jax.jit(jax.vmap(resonances, (None, 0)))


def double() -> contextlib.AbstractContextManager[Any]:
    """Let JAX have 64 bits for a prediction, whatever the process's own setting is."""
    return jax.enable_x64(True)


def _plain(values: np.ndarray) -> Any:
    """A float where one was asked for."""
    return float(values) if values.ndim == 0 else values
