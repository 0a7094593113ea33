"""Problems over some of the examples of another: what is learned from, and what is held out."""

from __future__ import annotations

import dataclasses
import functools
from numbers import Real
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from gdjax import data, losses, models
from gdjax.problems.classes import logistic_truth
from gdjax.problems.linear import least_squares_truth
from gdjax.problems.robust import robust_truth
from gdjax.records import InputError, Problem, whole


def restricted(problem: Problem, rows: Int[np.ndarray, " rows"]) -> Problem:
    """The same loss over some of the examples alone, with the minimizer, minimum and curvatures of that mean where they can be known."""
    part = _part(problem, rows)
    if not isinstance(problem.evaluate, models.Linear) or problem.weights is not None:
        return part
    truths = {losses.squared_error: least_squares_truth, losses.logistic: logistic_truth}
    truth = truths.get(problem.evaluate.loss) or functools.partial(robust_truth, problem.evaluate.loss)
    features, target = part.data
    known = truth(features, target, problem.constants, intercept=problem.evaluate.intercept)
    return dataclasses.replace(part, **known | ({"hessian": None} if problem.hessian is None else {}))


def split(problem: Problem, validation: float, *, seed: int = 0, standardized: bool = False) -> tuple[Problem, Problem]:
    """Hold out a share of the examples: the problem on the others, and the same loss on those, of which nothing more is known.

    Parameters
    ----------
    validation
        The share that is held out, rounded to a number of examples that leaves some on both sides.
    seed
        Of the permutation that decides which they are.
    standardized
        Whether the columns have been standardized, which is then done anew by the examples that are not held out alone.

    Raises
    ------
    InputError
        For a problem that is no mean over examples, and a share that is none.
    """
    n = problem.num_examples
    if not jax.tree.leaves(problem.data) or n < 2:
        raise InputError(f"{problem.name} has no examples to hold out: leave validation away, or choose a data set.")
    if isinstance(validation, bool) or not isinstance(validation, Real) or not 0.0 < float(validation) < 1.0:
        raise InputError(f"validation={validation} is not allowed: it is the share of the examples to hold out, above 0 and below 1.")
    num_held = min(max(1, round(float(validation) * n)), n - 1)
    order = np.random.default_rng(whole("seed", seed, least=0)).permutation(n)
    kept, held = np.sort(order[num_held:]), np.sort(order[:num_held])
    given = _standardized_by(problem, kept) if standardized else problem
    return restricted(given, kept), _part(given, held)


def _part(problem: Problem, rows: np.ndarray) -> Problem:
    """Some of the examples, and nothing known of their mean."""
    unknown: dict[str, Any] = dict.fromkeys(("minimizer", "minimum", "smoothness", "strong_convexity", "hessian"))
    chosen = {name: jax.tree.map(lambda leaf: leaf[rows], getattr(problem, name)) for name in ("data", "weights")}
    return dataclasses.replace(problem, **unknown, **chosen)


def _standardized_by(problem: Problem, rows: np.ndarray) -> Problem:
    """The problem in columns that are standardized by some of their rows."""
    features, target = problem.data
    has_ones = isinstance(problem.evaluate, models.Linear) and problem.evaluate.intercept
    ones, columns = np.split(features, [int(has_ones)], axis=1)
    return dataclasses.replace(problem, data=(np.concatenate([ones, data.standardized(columns, rows)], axis=1), target))
