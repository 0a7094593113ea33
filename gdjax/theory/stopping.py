"""When a rule stops a run whose losses are known exactly, and what it leaves undone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from gdjax.theory.quadratics import contraction


def notebook_stop(losses: Float[np.ndarray, " steps+1"], tolerance: float, patience: int = 10) -> int:
    """The first step that ends `patience` steps in a row with losses[t - 1] - losses[t] < tolerance; -1 if none does.

    The notebook compares losses after updates, so the first comparison is of the second update with the first. A loss that grows
    "improves" by less than any tolerance.

    >>> notebook_stop(2.0 ** np.arange(20), 1e-6)
    11
    """
    with np.errstate(invalid="ignore"):
        return _in_a_row(losses[1:-1] - losses[2:] < tolerance, patience, first=2)


def repaired_stop(losses: Float[np.ndarray, " steps+1"], rtol: float, patience: int = 10, eps: float = 1e-12) -> int:
    """The first step that ends `patience` steps in a row with |losses[t - 1] - losses[t]| <= rtol max(|losses[t]|, eps); -1 if none does.

    >>> repaired_stop(2.0 ** np.arange(20), 1e-6)
    -1
    """
    before, after = losses[:-1], losses[1:]
    with np.errstate(invalid="ignore"):
        small = (np.abs(before - after) <= rtol * np.maximum(np.abs(after), eps)) & np.isfinite(after)
    return _in_a_row(small, patience, first=1)


def patience_stop(losses: Float[np.ndarray, " steps+1"], patience: int = 10) -> tuple[int, int]:
    """The step with the least loss so far when `patience` steps in a row have brought none below it, and that step; -1 if none ends so.

    >>> patience_stop(np.array([3.0, 2.0, 1.0, 1.5, 1.2, 0.9]), 2)
    (2, 4)
    """
    best = 0
    for step, loss in enumerate(losses):
        best = step if loss < losses[best] else best
        if step - best >= patience:
            return best, step
    return best, -1


def excess_at_stop(learning_rate: float, smoothness: float, strong_convexity: float, tolerance: float, patience: int = 10) -> float:
    """tolerance rho^(2 patience + 1) / (1 - rho^2), f - f* where the notebook's rule stops gradient descent; right to 1 - rho^2 or better.

    In the end a step multiplies f - f* by rho^2, rho = max(|1 - eta mu|, |1 - eta L|), and so lowers it by (1 - rho^2) of it. The first
    step below the tolerance lowers it by between rho^2 and 1 times that, and patience - 1 more follow. For a small rate it is about
    tolerance / (2 eta mu): the smaller the rate, the more is left.

    >>> round(excess_at_stop(0.001, 68.59032720199998, 0.4982803929367592, 1e-6) * 1e4, 2)  # the notebook's data; 9.94 by the reference
    9.93
    """
    rho = float(contraction(learning_rate, smoothness, strong_convexity))
    return tolerance * rho ** (2 * patience + 1) / (1.0 - rho**2)


def _in_a_row(small: Bool[np.ndarray, " comparisons"], patience: int, *, first: int) -> int:
    """The step of the last of the first `patience` comparisons in a row that hold; `first` is the step of the first comparison."""
    if len(small) < patience:
        return -1
    together = np.convolve(small, np.ones(patience, int), mode="valid") == patience
    return int(np.argmax(together)) + patience - 1 + first if together.any() else -1
