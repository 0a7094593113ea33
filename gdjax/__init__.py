"""Sweeps of gradient descent as one XLA program per shape, with the theory they must follow."""

from gdjax import methods, problems, samplers
from gdjax.records import Finding, InputError, Problem
from gdjax.sweep import sweep

__all__ = ["Finding", "InputError", "Problem", "methods", "problems", "samplers", "sweep"]
