"""Logistic regression by gradient descent: linear convergence with a ridge, and a logarithmic escape where classes can be separated."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import ArrayLike, Float, Int

from gdjax.records import Problem


def hessian(problem: Problem) -> Float[np.ndarray, "p p"]:
    """X'DX / n + 2 ridge of logistic regression at its minimizer, D = diag(p_i (1 - p_i)); the intercept has no ridge."""
    X, target = (np.asarray(part) for part in problem.data)
    wrong = 1.0 / (1.0 + np.exp(target * (X @ np.asarray(problem.minimizer))))
    penalty = np.full(X.shape[1], 2.0 * float(problem.constants.get("ridge", 0.0)))
    penalty[: int(problem.evaluate.intercept)] = 0.0  # pyright: ignore[reportFunctionMemberAccess]  (a linear model)
    return X.T @ ((wrong * (1.0 - wrong))[:, None] * X) / len(X) + np.diag(penalty)


def curvatures(problem: Problem) -> Float[np.ndarray, " p"]:
    """The eigenvalues, ascending, of the Hessian at the minimizer.

    Near it descent is that of a quadratic with these: its contraction is max |1 - eta lambda|, however large the bound
    lambda_max(X'X / n) / 4 + 2 ridge is that holds everywhere.
    """
    return np.linalg.eigvalsh(hessian(problem))


def distances_near(
    problem: Problem, error: Float[np.ndarray, " p"], learning_rate: float, steps: Int[ArrayLike, " records"]
) -> Float[np.ndarray, " records"]:
    """||(I - eta H)^t e||, how far from the minimizer descent is t steps after an error e so small that f is a quadratic there."""
    values, vectors = np.linalg.eigh(hessian(problem))
    left = (1.0 - learning_rate * values) ** np.asarray(steps)[:, None] * (vectors.T @ error)
    return np.linalg.norm(left, axis=1)


def separable_loss(steps: Float[ArrayLike, "..."], learning_rate: float, margin: float) -> Float[np.ndarray, "..."]:
    """1 / (eta gamma^2 t): what the mean loss comes down to on separable classes, gamma the largest margin of a unit vector.

    Its limit where every example is as near as the nearest; where some are not support vectors of the maximum-margin line, or weigh
    differently, only the exponent is -1, and the constant is approached as slowly as 1 / log t (Soudry et al. 2018, Thm 3).

    >>> float(separable_loss(100, 1.0, 0.5))
    0.04
    """
    return 1.0 / (learning_rate * margin**2 * np.asarray(steps, dtype=float))


def symmetric_margins(num_steps: int, learning_rate: float, margin: float) -> Float[Array, " steps"]:
    """z_{t+1} = z_t + eta gamma^2 / (1 + e^z_t) from 0, for t = 0 .. num_steps: margins y x'w of examples that all have one by symmetry.

    Then theta_t = z_t / gamma along the maximum-margin direction, and the mean loss is log(1 + e^-z).

    >>> symmetric_margins(2, 1.0, 1.0).round(6).tolist()
    [0.0, 0.5, 0.877541]
    """
    with jax.enable_x64(True):
        return _margins(jnp.asarray(learning_rate * margin**2, float), int(num_steps))


@functools.partial(jax.jit, static_argnames="num_steps")
def _margins(pace: Float[Array, ""], num_steps: int) -> Float[Array, " steps"]:
    def step(z: Array, _: None) -> tuple[Array, Array]:
        return z + pace * jax.nn.sigmoid(-z), z

    return jax.lax.scan(step, jnp.zeros_like(pace), None, length=num_steps + 1)[1]


def symmetric_loss(margins: Float[ArrayLike, "..."]) -> Float[np.ndarray, "..."]:
    """log(1 + e^-z)."""
    return np.logaddexp(0.0, -np.asarray(margins, dtype=float))


def escape(steps: Int[ArrayLike, "..."], learning_rate: float, margin: float) -> Float[np.ndarray, "..."]:
    """ln(eta gamma^2 t) / gamma, what ||theta_t|| grows as on separable classes, up to a constant (Soudry et al. 2018, Thm 3)."""
    return np.log(learning_rate * margin**2 * np.asarray(steps, dtype=float)) / margin
