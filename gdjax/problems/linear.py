"""Linear least squares, and the data of the texts on it."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float

from gdjax import losses, models
from gdjax.problems.arrays import checked, module, with_ones
from gdjax.problems.quadratics import HESSIAN_LIMIT
from gdjax.records import InputError, Problem, whole


def least_squares(X: Float[ArrayLike, "n p"], y: Float[ArrayLike, " n"], intercept: bool = True, *, hessian: bool | None = None) -> Problem:
    """J(theta) = (1/n) ||[1 X] theta - y||^2, theta = (b, w_1..w_p), started at zero.

    The Hessian is (2/n) [1 X]'[1 X], so gradient descent is stable iff learning_rate < 2 / L = 1 / lambda_max([1 X]'[1 X] / n). The
    minimizer comes from a QR and a singular value decomposition. Where columns are constant or collinear it is the one of least norm,
    which gradient descent from zero converges to, and mu is the smallest eigenvalue that is not zero.

    Parameters
    ----------
    intercept
        Whether to put a column of ones before the features.
    hessian
        Whether to take full gradients through the Hessian, p^2 a step instead of 2 n p; by default where that is less work.

    Raises
    ------
    InputError
        For arrays of other shapes, without rows, or with NaN or infinite entries.

    >>> problem = least_squares([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> [round(float(x), 12) for x in problem.minimizer]
    [1.0, 2.0]
    """
    features, target = checked(X, y)
    names = tuple(f"w{j + 1}" for j in range(features.shape[1]))
    if intercept:
        features, names = with_ones(features), ("b", *names)
    return Problem(
        evaluate=models.Linear(losses.squared_error, intercept=intercept),
        name="least_squares",
        parameter_names=names,
        data=(features, target),
        start=module(features).zeros(features.shape[1]),
        **least_squares_truth(features, target, form_hessian=hessian),
    )


def notebook_line(*, hessian: bool | None = None) -> Problem:
    """The notebook's line y = 2.5 + 1.7 x + noise: 80 points on [0, 10], unit normal noise of NumPy's seed 42, unscaled.

    Its condition number is 137.65 and its stability edge 0.0291586.
    """
    rng = np.random.default_rng(42)
    x = np.linspace(0, 10, 80)
    line = least_squares(x[:, None], 2.5 + 1.7 * x + rng.normal(0, 1.0, size=x.size), hessian=hessian)
    return dataclasses.replace(line, name="notebook_line")


def random_linear(
    *, num_examples: int = 500, num_features: int = 3, noise: float = 0.3, seed: int = 42, hessian: bool | None = None
) -> Problem:
    """Standard normal features and y = 3 + X w + noise, of the page's kind: w = (2, -1.5, 0.5), continued with zeros.

    The draws are NumPy's, not the page's torch ones.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_examples, num_features))
    w = np.resize(np.array([2.0, -1.5, 0.5]), num_features) * (np.arange(num_features) < 3)
    linear = least_squares(X, 3.0 + X @ w + noise * rng.normal(size=num_examples), hessian=hessian)
    return dataclasses.replace(linear, name="random_linear")


def page_data(*, num_examples: int = 500, hessian: bool | None = None) -> Problem:
    """The page's own data, `torch.manual_seed(42)`: 500 rows of 3 standard normal features and y = 3 + 2 x1 - 1.5 x2 + 0.5 x3 + noise.

    They are float32 numbers, taken to float64 without change. The page fits the first 400 rows, its sections 1 to 3 all of them.
    """
    if whole("num_examples", num_examples) > 500:
        raise InputError(f"num_examples={num_examples} is not allowed: the page's data have 500.")
    table = np.loadtxt(Path(__file__).with_name("page_data.csv"), np.float32, delimiter=",", skiprows=1).astype(float)[:num_examples]
    return dataclasses.replace(least_squares(table[:, :3], table[:, 3], hessian=hessian), name="page_data")


def least_squares_truth(
    features: Any, target: Any, constants: dict[str, Any] | None = None, *, intercept: bool = True, form_hessian: bool | None = None
) -> dict[str, Any]:
    """The minimum-norm minimizer and the spectrum of H = (2/n) X'X, by way of X = QR and the singular values of R."""
    xp = module(features, target)
    form_hessian = _hessian_pays(features.shape) if form_hessian is None else form_hessian
    n = target.shape[0]
    Q, R = xp.linalg.qr(features)
    U, singular, Vt = xp.linalg.svd(R, full_matrices=False)
    present = singular > singular[0] * max(features.shape) * np.finfo(np.float64).eps
    if xp is np and not present.any():
        raise InputError("every column of X is zero: there is nothing to fit.")
    if xp is np and present.sum() < features.shape[1]:
        _warn_collinear(int(present.sum()), features)
    inverse = xp.where(present, 1.0 / xp.where(present, singular, 1.0), 0.0)
    minimizer = Vt.T @ (inverse * (U.T @ (Q.T @ target)))
    curvatures = 2.0 * singular**2 / n
    residual = features @ minimizer - target
    return {
        "minimizer": minimizer,
        "minimum": residual @ residual / n,
        "smoothness": curvatures[0],
        "strong_convexity": xp.min(xp.where(present, curvatures, xp.inf)),
        "hessian": 2.0 * (R.T @ R) / n if form_hessian else None,
    }


def _hessian_pays(shape: tuple[int, ...]) -> bool:
    n, p = shape
    return p <= min(2 * n, HESSIAN_LIMIT)


def _warn_collinear(rank: int, features: np.ndarray) -> None:
    constant = int(np.count_nonzero(np.ptp(features, axis=0) == 0.0))
    warnings.warn(
        f"the columns of X are collinear: rank {rank} of {features.shape[1]} ({constant} constant, an intercept's column counted). "
        "The minimizer is the one of least norm and mu the smallest nonzero eigenvalue.",
        stacklevel=4,
    )
