"""Closed forms: what gradient descent must do, from the problem alone.

Every function is pure; nothing here has seen a measurement. What every experiment asks for is here by its name; each topic has a
module of its own, `theory.<topic>.<function>`.
"""

from gdjax.theory import early_stopping, moments, quadratics
from gdjax.theory.moments import (
    INDEPENDENT,
    batch_noise_factor,
    expected_suboptimality,
    has_moments,
    mean_square_edge,
    noise_floor,
    reshuffled_noise,
)
from gdjax.theory.quadratics import (
    Modes,
    accumulated_gradient,
    contraction,
    eigenvectors,
    exact_least_squares,
    gradient_descent,
    gradient_descent_errors,
    is_least_squares,
    is_quadratic,
    modes,
    optimal_rate,
    stability_edge,
    steps_at_optimal_rate,
    steps_to_tolerance,
)

__all__ = [
    "INDEPENDENT",
    "Modes",
    "accumulated_gradient",
    "batch_noise_factor",
    "contraction",
    "early_stopping",
    "eigenvectors",
    "exact_least_squares",
    "expected_suboptimality",
    "gradient_descent",
    "gradient_descent_errors",
    "has_moments",
    "is_least_squares",
    "is_quadratic",
    "mean_square_edge",
    "modes",
    "moments",
    "noise_floor",
    "optimal_rate",
    "quadratics",
    "reshuffled_noise",
    "stability_edge",
    "steps_at_optimal_rate",
    "steps_to_tolerance",
]
