"""Linear predictors with losses that grow less than the square."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from gdjax import losses, models, solvers
from gdjax.problems.arrays import checked, module, positive, with_ones
from gdjax.problems.linear import notebook_line
from gdjax.records import Problem, unknown_name


def robust_regression(
    X: Float[ArrayLike, "n p"],
    y: Float[ArrayLike, " n"],
    loss: str = "huber",
    *,
    intercept: bool = True,
    **constants: float,
) -> Problem:
    """f(theta) = mean loss([1 X] theta, y), theta = (b, w_1..w_p), started at zero, for a loss that grows less than the square.

    The minimizer is found by reweighted least squares, the one of `absolute` by its linear program (on the host only). A loss that is
    not convex has the minimum below Huber's estimate with delta = 1.345 x the residuals' spread, a usual way to begin it.
    `smoothness` is the bound psi'(0) lambda_max([1 X]'[1 X] / n), met where every residual is small: half of least squares' L for
    "huber", whose zone is r^2 / 2, and none for "absolute", whose kink no rate is stable at.

    Parameters
    ----------
    loss
        "huber", "absolute", "student_t", "bisquare", "squared_error", or a negative log-likelihood of `gdjax.losses`.
    constants
        The loss's own numbers (`delta`, `degrees`, `scale`, `cutoff`), above 0, in units of y where they are sizes.

    Raises
    ------
    InputError
        For arrays that `least_squares` refuses, and for an unknown loss or number of it.

    >>> problem = robust_regression([[0.0], [1.0], [2.0], [3.0], [4.0]], [1.0, 3.0, 50.0, 7.0, 9.0], delta=0.1)
    >>> [round(float(x), 3) for x in problem.minimizer]
    [1.025, 2.0]
    """
    pointwise = _robust_loss(loss, constants)
    constants = {name: positive(name, value) for name, value in constants.items()}
    features, target = checked(X, y)
    names = tuple(f"w{j + 1}" for j in range(features.shape[1]))
    if intercept:
        features, names = with_ones(features), ("b", *names)
    return Problem(
        evaluate=models.Linear(pointwise, intercept=intercept),
        name=f"robust_regression_{loss}",
        parameter_names=names,
        data=(features, target),
        constants=constants,
        start=module(features).zeros(features.shape[1]),
        **robust_truth(pointwise, features, target, constants),
    )


def notebook_outliers(*, loss: str = "huber", **constants: float) -> Problem:
    """The notebook's line with four of its targets spoilt: 15, -20, 25 and -30 added to examples 10, 30, 50 and 70.

    Least squares' slope falls to 1.528; Huber's with delta = 1 stays at 1.699, where 1.7 is the truth.
    """
    X, y = notebook_line().data
    spoilt = np.array(y)
    spoilt[[10, 30, 50, 70]] += [15.0, -20.0, 25.0, -30.0]
    return dataclasses.replace(robust_regression(X[:, 1:], spoilt, loss, intercept=True, **constants), name="notebook_outliers")


class Whitened(NamedTuple):
    """Coordinates z in which features are orthogonal with mean square 1: theta = back @ z."""

    basis: Float[Any, "n p"]
    back: Float[Any, "p p"]


def whitened(features: Float[ArrayLike, "n p"]) -> Whitened:
    """Turn and stretch the features until their Gram matrix basis'basis / n is the identity: sqrt(n) U of a singular value decomposition.

    Estimates commute with such a change of coordinates, and in these gradient descent has condition number 1 on the mean square.
    Directions that no example has are columns of zeros, so that the fit has least norm.
    """
    xp, (n, p) = module(features), np.shape(features)
    U, singular, Vt = xp.linalg.svd(xp.asarray(features), full_matrices=False)
    present = singular > singular[0] * max(n, p) * np.finfo(np.float64).eps
    inverse = xp.where(present, xp.sqrt(n) / xp.where(present, singular, 1.0), 0.0)
    return Whitened(xp.sqrt(n) * U * present[None, :], Vt.T * inverse[None, :])


def robust_losses() -> dict[str, Callable[..., Array]]:
    """The losses of a residual, by name."""
    return {name: loss for name, loss in vars(losses).items() if inspect.isfunction(loss) and loss is not losses.logistic}


def keywords(function: Callable[..., Any]) -> list[str]:
    """The names that a function takes by keyword alone."""
    return [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]


def _robust_loss(name: str, constants: dict[str, Any]) -> Callable[..., Array]:
    known = robust_losses()
    if name not in known:
        raise unknown_name("loss", name, known)
    allowed = keywords(known[name])
    for number in constants:
        if number not in allowed:
            raise unknown_name(f"number of loss {name}", number, allowed)
    return known[name]


def robust_truth(
    loss: Callable[..., Array], features: Any, target: Any, constants: dict[str, Any], *, intercept: bool = True
) -> dict[str, Any]:
    """Minimize in coordinates in which the features are orthogonal; JAX computes it on the host too, in 64 bits."""
    traced, kinked = module(features, target, constants) is jnp, loss in (losses.absolute, losses.laplace_nll)
    if traced and kinked:
        return {}
    basis, back = whitened(features)
    largest = module(features).linalg.eigvalsh(features.T @ features / len(features))[-1]
    with contextlib.nullcontext() if traced else jax.enable_x64(True):
        z = solvers.least_absolute(basis, target) if kinked else solvers.m_estimate(loss, basis, target, constants)
        truth = {"minimizer": back @ z, "minimum": jnp.mean(loss(basis @ z, target, **constants))}
        if not kinked:
            truth["smoothness"] = solvers.curvature(loss, constants) * largest
    return truth if traced else jax.tree.map(np.asarray, truth)
