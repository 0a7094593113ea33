"""Objectives whose truth is known: their minimizer, minimum, smoothness L and strong convexity mu.

A builder takes arrays or numbers. On the host it computes in NumPy's float64; inside a trace (a sweep over a builder's own numbers)
it computes in JAX with the same formulas.
"""

from gdjax.problems.by_name import from_file, mlp_from_file, named
from gdjax.problems.classes import logistic
from gdjax.problems.linear import least_squares, notebook_line, page_data, random_linear
from gdjax.problems.networks import mlp_classification
from gdjax.problems.own_loss import from_loss
from gdjax.problems.parts import restricted, split
from gdjax.problems.quadratics import HESSIAN_LIMIT, designed_spectrum, gap_spectrum, nesterov_worst_case
from gdjax.problems.robust import Whitened, notebook_outliers, robust_regression, whitened

__all__ = [
    "HESSIAN_LIMIT",
    "Whitened",
    "designed_spectrum",
    "from_file",
    "from_loss",
    "gap_spectrum",
    "least_squares",
    "logistic",
    "mlp_classification",
    "mlp_from_file",
    "named",
    "nesterov_worst_case",
    "notebook_line",
    "notebook_outliers",
    "page_data",
    "random_linear",
    "restricted",
    "robust_regression",
    "split",
    "whitened",
]
