"""Arrays that problems are built from: checked, in NumPy on the host and in JAX inside a trace."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gdjax.records import InputError


def module(*arrays: Any) -> Any:
    """JAX inside a trace, NumPy's float64 on the host."""
    return jnp if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays)) else np


def checked(X: Any, y: Any) -> tuple[Any, Any]:
    """X as (n, p) and y as (n,), all of them finite."""
    xp = module(X, y)
    features, target = xp.asarray(X, dtype=float), xp.asarray(y, dtype=float)
    if features.ndim == 1:
        features = features[:, None]
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]  # a column against a vector would broadcast to n x n, silently
    if features.ndim != 2 or target.shape != features.shape[:1]:
        raise InputError(f"X has shape {np.shape(X)} and y {np.shape(y)}: they must be (n, p) and (n,).")
    if 0 in features.shape:
        raise InputError(f"X has shape {features.shape}: there must be at least one row and one column.")
    if xp is np:
        for name, array in (("X", features), ("y", target)):
            bad = int(np.count_nonzero(~np.isfinite(array)))
            if bad:
                raise InputError(f"{name} holds {bad} NaN or infinite entries: drop or fill those rows first.")
    return features, target


def checked_classes(X: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, the classes in order, and the place of each example's class among them."""
    given = np.asarray(labels)
    given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    if given.ndim != 1:
        raise InputError(f"labels has shape {given.shape}: give one class an example, (n,).")
    features, _ = checked(X, np.zeros(given.shape))
    if np.issubdtype(given.dtype, np.floating) and np.isnan(given).any():
        raise InputError(f"labels holds {int(np.isnan(given).sum())} NaN entries: drop those rows first.")
    classes, places = np.unique(given, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"labels has one class, {classes[0]}: there must be two or more.")
    return features, classes, places.ravel()


def with_ones(features: Any) -> Any:
    """The features with a column of ones before them."""
    xp = module(features)
    return xp.concatenate([xp.ones((features.shape[0], 1), features.dtype), features], axis=1)


def positive(name: str, value: Any, *, or_zero: bool = False) -> Any:
    """A number above 0, or one that is being traced."""
    if isinstance(value, Tracer):
        return value
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iuf" or not (0 < array < np.inf or (or_zero and array == 0)):
        raise InputError(f"{name}={value} is not allowed: it is a number, {'0 or more' if or_zero else 'above 0'}.")
    return float(array)
