"""Sweeps of gradient descent as one XLA program per shape, with the theory they must follow."""

import importlib
from typing import TYPE_CHECKING, Any

from gdjax import analysis, losses, methods, persistence, problems, samplers, stopping, theory
from gdjax.program import Observer
from gdjax.records import Finding, InputError, Problem
from gdjax.store import open_results
from gdjax.sweep import sweep

if TYPE_CHECKING:
    from gdjax.estimator import GradientDescentClassifier, GradientDescentRegressor
    from gdjax.search import SweepSearchCV

__all__ = [
    "Finding",
    "GradientDescentClassifier",
    "GradientDescentRegressor",
    "InputError",
    "Observer",
    "Problem",
    "SweepSearchCV",
    "analysis",
    "losses",
    "methods",
    "open_results",
    "persistence",
    "problems",
    "samplers",
    "stopping",
    "sweep",
    "theory",
]


_LATER = {
    "GradientDescentClassifier": "gdjax.estimator",
    "GradientDescentRegressor": "gdjax.estimator",
    "SweepSearchCV": "gdjax.search",
}


def __getattr__(name: str) -> Any:
    """What a sweep has no need of is imported when it is first used: matplotlib with the figures, scikit-learn with the estimators."""
    if name == "figures":
        return importlib.import_module("gdjax.figures")
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'gdjax' has no attribute '{name}'")
