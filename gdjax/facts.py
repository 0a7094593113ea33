"""What a sweep keeps of its problem, so that its results can be judged without the data: numbers that theory asks for."""

from __future__ import annotations

import weakref
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from gdjax import losses, models
from gdjax.records import Problem

MOST_MODES = 128
"""Problems with more parameters keep no numbers of their eigenmodes: an eigendecomposition takes 5 ms there."""

CONVEX = (losses.squared_error, losses.huber, losses.logistic, losses.gaussian_nll)
"""Losses of a prediction that are convex in it, and smooth."""

WAVY = (losses.student_t, losses.bisquare)
"""Losses that are not convex: the minimum that is known is the one near Huber's estimate, and another may be lower."""

_kept: weakref.WeakKeyDictionary[Problem, tuple[np.ndarray, np.ndarray]] = weakref.WeakKeyDictionary()


def facts(problem: Problem, start: PyTree = None) -> dict[str, Any]:
    """The problem's constants as plain numbers and lists, as far as they are known.

    Returns
    -------
    `minimum`, `smoothness`, `strong_convexity`, `condition_number`; `convex`, and `strong_convexity_is_local` where mu is that of the
    Hessian at the minimizer; `start_distance`, from where the runs begin to the minimizer; up to `MOST_MODES` parameters `start` itself
    and, of a quadratic that is known by its Hessian, `hessian_eigenvalues` and `start_modes`, the start's error along each eigenvector.
    """
    known = {name: getattr(problem, name) for name in ("minimum", "smoothness", "strong_convexity", "condition_number")}
    found: dict[str, Any] = {name: float(value) for name, value in known.items() if value is not None}
    found |= _convexity(problem)
    begin = problem.start if start is None else start
    if problem.minimizer is not None:
        apart = jax.tree.map(lambda x, best: np.sum((np.asarray(x) - np.asarray(best)) ** 2), begin, problem.minimizer)
        found["start_distance"] = float(np.sqrt(sum(jax.tree.leaves(apart))))
    if jax.tree.structure(begin) == jax.tree.structure(0.0) and np.ndim(begin) == 1 and np.size(begin) <= MOST_MODES:
        found |= {"start": np.asarray(begin, dtype=float).tolist()} | _modes(problem, begin)
    return found


def lowest(problem: Problem) -> float | None:
    """What f is known to be nowhere lower than: the problem's minimum, if there is but one."""
    wavy = isinstance(problem.evaluate, models.Linear) and problem.evaluate.loss in WAVY
    return None if problem.minimum is None or wavy else float(problem.minimum)


def _convexity(problem: Problem) -> dict[str, bool]:
    """Whether f is known to be convex."""
    if isinstance(problem.evaluate, models.Linear):
        local = {"strong_convexity_is_local": True} if problem.evaluate.loss is losses.logistic else {}
        return {"convex": True} | local if problem.evaluate.loss in CONVEX else {}
    return {"convex": True} if problem.strong_convexity is not None else {}


def _modes(problem: Problem, start: PyTree) -> dict[str, list[float]]:
    if problem.minimizer is None:
        return {}
    error = np.asarray(start) - np.asarray(problem.minimizer)
    if "eigenvalues" in problem.constants:
        return {"hessian_eigenvalues": np.asarray(problem.constants["eigenvalues"]).tolist(), "start_modes": error.tolist()}
    if problem.hessian is None:
        return {}
    if problem not in _kept:
        _kept[problem] = np.linalg.eigh(np.asarray(problem.hessian))
    curvatures, vectors = _kept[problem]
    return {"hessian_eigenvalues": np.maximum(curvatures, 0.0).tolist(), "start_modes": (vectors.T @ error).tolist()}
