"""Sweeps of gradient descent as one XLA program per shape, with the theory they must follow."""

import importlib
from typing import Any

from gdjax import analysis, losses, methods, persistence, problems, samplers, stopping, theory
from gdjax.program import Observer
from gdjax.records import Finding, InputError, Problem
from gdjax.store import open_results
from gdjax.sweep import sweep

__all__ = [
    "Finding",
    "InputError",
    "Observer",
    "Problem",
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


def __getattr__(name: str) -> Any:
    """`gdjax.figures` is imported when it is first used: a sweep has no need of matplotlib."""
    if name == "figures":
        return importlib.import_module("gdjax.figures")
    raise AttributeError(f"module 'gdjax' has no attribute '{name}'")
