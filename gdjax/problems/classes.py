"""Linear predictors that tell classes apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float

from gdjax import losses, models
from gdjax.problems.arrays import checked, positive, with_ones
from gdjax.records import InputError, Problem


def logistic(X: Float[ArrayLike, "n p"], y: Float[ArrayLike, " n"], intercept: bool = True, *, ridge: float = 0.0) -> Problem:
    """mean log(1 + exp(-y_i x_i'theta)) + ridge ||w||^2 for two classes; the intercept is not penalised.

    Whatever the two values of y are, the greater one is the class +1. With ridge > 0 the minimizer is found by Newton's method to
    round-off, and `smoothness` is the bound lambda_max([1 X]'[1 X]/n) / 4 + 2 ridge. With ridge = 0 separable classes have no
    minimizer, so none is given. `strong_convexity` is the smallest Hessian eigenvalue at the minimizer, the local rate's.
    """
    ridge = positive("ridge", ridge, or_zero=True)
    features, target = checked(X, y)
    classes = np.unique(np.asarray(target))
    if classes.size != 2:
        raise InputError(f"logistic needs a target of exactly two values; given {classes.size}: {classes[:5].tolist()}. Keep those of two.")
    target = np.where(np.asarray(target) == classes[1], 1.0, -1.0)
    names = tuple(f"w{j + 1}" for j in range(features.shape[1]))
    if intercept:
        features, names = with_ones(features), ("b", *names)
    constants = {"ridge": ridge} if ridge > 0 else {}
    return Problem(
        evaluate=models.Linear(losses.logistic, intercept=intercept),
        name="logistic",
        parameter_names=names,
        data=(features, target),
        constants=constants,
        start=np.zeros(features.shape[1]),
        **logistic_truth(features, target, constants, intercept=intercept),
    )


def logistic_truth(features: np.ndarray, target: np.ndarray, constants: dict[str, Any], *, intercept: bool) -> dict[str, Any]:
    """The bound on the curvature; and what a ridge lets be known."""
    if len(np.unique(target)) < 2:
        raise InputError(f"all {len(target)} examples to learn from are of one class: hold out fewer of them, or others.")
    ridge = constants.get("ridge", 0.0)
    penalty = np.full(features.shape[1], 2.0 * ridge)
    penalty[: int(intercept)] = 0.0
    bound = {"smoothness": np.linalg.eigvalsh(features.T @ features / len(target))[-1] / 4.0 + 2.0 * ridge}
    return bound | (_by_newton(features, target, penalty) if ridge > 0 else {})


def _by_newton(features: np.ndarray, target: np.ndarray, penalty: np.ndarray) -> dict[str, Any]:
    """Minimize by Newton's method, halving a step that would raise the objective."""

    def objective(theta: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, -target * (features @ theta))) + 0.5 * penalty @ theta**2)

    def derivatives(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probability = np.exp(-np.logaddexp(0.0, target * (features @ theta)))  # of being classed wrongly
        gradient = -features.T @ (target * probability) / len(target) + penalty * theta
        curvature = features.T @ ((probability * (1 - probability))[:, None] * features) / len(target)
        return gradient, curvature + np.diag(penalty)

    theta = np.zeros(features.shape[1])
    for _ in range(100):
        gradient, hessian = derivatives(theta)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        highest = objective(theta) * (1.0 + 8.0 * np.finfo(float).eps)  # near the end an objective differs by its rounding alone
        while objective(theta - step) > highest and np.abs(step).max() > 1e-16 * (1 + np.abs(theta).max()):
            step = step / 2
        theta = theta - step
        if np.abs(step).max() <= 1e-15 * (1 + np.abs(theta).max()):
            break
    curvatures = np.linalg.eigvalsh(derivatives(theta)[1])
    positive = curvatures[curvatures > curvatures[-1] * len(theta) * np.finfo(float).eps]
    return {"minimizer": theta, "minimum": objective(theta), "strong_convexity": positive[0]}
