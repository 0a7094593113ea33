"""SVRG and SAGA on strongly convex means of smooth f_i: their theorems' factors, and on least squares with a ridge SVRG's exact mean.

f_i has a Hessian of at most L, and f of at least mu; n examples, batches of one drawn with replacement.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gdjax.records import Problem


def svrg_factor(learning_rate: float, smoothness: float, strong_convexity: float, stage_length: int) -> float:
    """rho = 1 / (mu eta (1 - 2 L eta) m) + 2 L eta / (1 - 2 L eta): E f(w_s) - f* <= rho^s (f(w_0) - f*) after s stages of m steps.

    Johnson and Zhang (2013), Thm 1, for a snapshot that is a random iterate of the stage, hence by
    convexity for their average. It needs 2 L eta < 1 and says something where rho < 1.

    >>> round(svrg_factor(0.1, 1.0, 0.1, 200), 3)
    0.875
    """
    room = 1.0 - 2.0 * smoothness * learning_rate
    return 1.0 / (strong_convexity * learning_rate * room * stage_length) + 2.0 * smoothness * learning_rate / room


class Saga(NamedTuple):
    """E||x_t - x*||^2 <= factor^t (||x_0 - x*||^2 + weight (f(x_0) - f*)), for SAGA at that rate with its table begun at x_0."""

    learning_rate: float
    factor: float
    weight: float


def saga(smoothness: float, strong_convexity: float, num_examples: int) -> Saga:
    """SAGA at the rate 1 / (3 L), which needs no mu: the factor is 1 - min(1 / (4 n), mu / (3 L)).

    Defazio, Bach and Lacoste-Julien (2014), section 2 (unconfirmed).

    >>> round(saga(1.0, 0.1, 200).factor, 5)
    0.99875
    """
    n = num_examples
    return Saga(1.0 / (3.0 * smoothness), 1.0 - min(0.25 / n, strong_convexity / (3.0 * smoothness)), 2.0 * n / (3.0 * smoothness))


def saga_strongly_convex(smoothness: float, strong_convexity: float, num_examples: int) -> Saga:
    """SAGA at the rate 1 / (2 (mu n + L)): the factor is 1 - mu / (2 (mu n + L)).

    Defazio, Bach and Lacoste-Julien (2014), Cor. 1.

    >>> round(saga_strongly_convex(1.01, 0.0851, 200).factor, 5)
    0.99764
    """
    scale = strong_convexity * num_examples + smoothness
    return Saga(0.5 / scale, 1.0 - 0.5 * strong_convexity / scale, num_examples / scale)


class Ridge(NamedTuple):
    """f_i = (x_i'theta - y_i)^2 + ridge |theta|^2 around its minimizer: A_i is the Hessian of f_i, g_i its gradient at the minimizer."""

    hessian: Float[np.ndarray, "p p"]  # H, the mean of A_i
    spread: Float[np.ndarray, "pp pp"]  # S -> mean_i (A_i - H) S (A_i - H), on vec(S)
    noise: Float[np.ndarray, "p p"]  # mean_i g_i g_i'
    error: Float[np.ndarray, " p"]  # theta_0 - theta*


def ridge(problem: Problem) -> Ridge:
    """Take the moments of least squares with a ridge on all parameters, whose part in A_i - H cancels."""
    X, y = (np.asarray(part) for part in problem.data)
    minimizer, penalty = np.asarray(problem.minimizer), float(problem.constants.get("ridge", 0.0))
    gram, outer = X.T @ X / len(X), np.einsum("ni,nj->nij", X, X).reshape(len(X), -1)
    gradients = 2.0 * (X * (X @ minimizer - y)[:, None] + penalty * minimizer)
    return Ridge(
        hessian=2.0 * (gram + penalty * np.eye(len(gram))),
        spread=4.0 * (outer.T @ outer / len(X) - np.kron(gram, gram)),
        noise=gradients.T @ gradients / len(X),
        error=np.asarray(problem.start) - minimizer,
    )


def sgd_floor(moments: Ridge, learning_rate: float) -> float:
    """The stationary E f - f* of SGD, batches of one drawn with replacement: tr(H S) / 2 at the fixed point S of

    S+ = (I - eta H) S (I - eta H) + eta^2 (mean_i (A_i - H) S (A_i - H) + mean_i g_i g_i'), where its mean has gone to the minimizer.
    """
    shrink = np.eye(len(moments.hessian)) - learning_rate * moments.hessian
    step = np.kron(shrink, shrink) + learning_rate**2 * moments.spread
    if np.max(np.abs(np.linalg.eigvals(step))) >= 1.0:
        return np.inf
    covariance = np.linalg.solve(np.eye(len(step)) - step, learning_rate**2 * moments.noise.ravel())
    return 0.5 * float(moments.hessian.ravel() @ covariance)


@functools.partial(jax.jit, static_argnames=("stage_length", "num_stages"))
def svrg_means(moments: Ridge, learning_rate: Float[Array, ""] | float, *, stage_length: int, num_stages: int) -> Float[Array, " stages+1"]:
    """The exact E f(x) - f* at the start and after each stage of SVRG whose snapshot w is the last iterate.

    With e = x - x* and d = x - w a step is e+ = (I - eta H) e - eta (A_i - H) d, so that E ee' = P, E e(w - x*)' = C and
    E (w - x*)(w - x*)' = W follow P+ = (I - eta H) P (I - eta H) + eta^2 mean_i (A_i - H) (P - C - C' + W) (A_i - H), C+ = (I - eta H) C,
    and P = C = W where a stage begins. The examples' own noise g_i is not in it.
    """
    shrink = jnp.eye(len(moments.hessian)) - learning_rate * moments.hessian

    def step(_: int, pair: tuple[Array, Array], snapshot: Array) -> tuple[Array, Array]:
        moved, crossed = pair
        apart = moved - crossed - crossed.T + snapshot
        spread = (moments.spread @ apart.ravel()).reshape(apart.shape)
        return shrink @ moved @ shrink + learning_rate**2 * spread, shrink @ crossed

    def stage(second: Array, _: None) -> tuple[Array, Array]:
        after = lax.fori_loop(0, stage_length, lambda i, pair: step(i, pair, second), (second, second))[0]
        return after, 0.5 * jnp.sum(moments.hessian * after)

    start = jnp.outer(jnp.asarray(moments.error), jnp.asarray(moments.error))
    _, values = lax.scan(stage, start, length=num_stages)
    return jnp.concatenate([0.5 * jnp.sum(moments.hessian * start)[None], values])
